"""What a stage's output was made with, against what is asked for now."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from preprocessing.storage import Manifest


def differences(manifest: Manifest, configuration: Any, inputs: Mapping[str, str]) -> list[str]:
    """What a manifest was made with, against what is asked for now: a sentence a key."""
    changes = [
        f"{path}: {_show(old)} then, {_show(new)} now"
        for path, old, new in _compare("", manifest.configuration, configuration)
    ]
    for name in sorted({*manifest.inputs, *inputs}):
        if manifest.inputs.get(name) != inputs.get(name):
            what = (
                "is new"
                if name not in manifest.inputs
                else "is gone"
                if name not in inputs
                else "has changed"
            )
            changes.append(f"the input {name} {what}")
    return changes


def _compare(path: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            change
            for key in sorted({*old, *new})
            for change in _compare(f"{path}.{key}" if path else key, old.get(key), new.get(key))
        ]
    return [] if old == new else [(path, old, new)]


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
