"""The summary of an output: what stage, of what, how much, what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from preprocessing.inspection.outputs import Output
from preprocessing.inspection.terminal import on_a_line, table
from preprocessing.records import all_there

_MOST_LINES = 20


def summarize(output: Output) -> dict[str, Any]:
    """The summary as plain values."""
    plain: dict[str, Any] = {
        "name": output.name,
        "directory": str(output.directory),
        "shards": [
            {"name": shard.name, "rows": shard.rows, "bytes": shard.size} for shard in output.shards
        ],
    }
    manifest = output.manifest
    if manifest is None:
        return {**plain, "kind": output.kind}
    return {
        **plain,
        "stage": manifest.stage,
        "whole": all_there(output.directory, output.shards),
        "configuration": manifest.configuration,
        "inputs": dict(manifest.inputs),
        "totals": {split: manifest.totals(split) for split in manifest.splits},
        "rejects": dict(manifest.rejects),
        "tables": {name: dict(counts) for name, counts in manifest.tables.items()},
        "facts": dict(manifest.facts),
    }


def render(plain: Mapping[str, Any]) -> Text:
    """The summary for a terminal."""
    text = Text()
    text.append(on_a_line(plain["name"]), style="bold")
    text.append(f"  {on_a_line(plain['directory'])}\n")
    if not plain.get("whole", True):
        text.append("  shards are missing or cut short; run the stage again\n", style="red")
    if "stage" not in plain:
        text.append(f"  {plain['kind']}, without a manifest\n")
        return text
    text.append_text(_totals(plain["totals"]))
    if plain["rejects"]:
        text.append("\n").append_text(_counts("left out", plain["rejects"]))
    for what, columns in _dimensions(plain["tables"]).items():
        text.append("\n").append_text(_columns(what, columns))
    for title in ("facts", "configuration", "inputs"):
        if plain[title]:
            rows = [(path, _short(value)) for path, value in _leaves("", plain[title])]
            most = rows[:_MOST_LINES]
            text.append("\n").append_text(table([title, ""], most))
            if len(rows) > len(most):
                text.append(f"  … and {len(rows) - len(most):,} more\n", style="dim")
    return text


def _totals(totals: Mapping[str, Mapping[str, int]]) -> Text:
    names = list(dict.fromkeys(name for counts in totals.values() for name in counts))
    rows = [
        (split or "all", *(counts.get(name) for name in names)) for split, counts in totals.items()
    ]
    return table(["split", *names], rows)


def _counts(title: str, counts: Mapping[str, int]) -> Text:
    total = max(1, sum(counts.values()))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return table([title, "", ""], [(name, count, f"{count / total:.1%}") for name, count in ranked])


def _dimensions(
    tables: Mapping[str, Mapping[str, int]],
) -> dict[str, dict[str, Mapping[str, int]]]:
    """Tables ``documents by language`` and ``bytes by language`` side by side."""
    dimensions: dict[str, dict[str, Mapping[str, int]]] = {}
    for name, counts in tables.items():
        what, _, by = name.rpartition(" by ")
        dimensions.setdefault(by, {})[what or "count"] = counts
    return dimensions


def _columns(title: str, columns: Mapping[str, Mapping[str, int]]) -> Text:
    names = list(columns)
    first = columns.get("documents", columns[names[0]])
    keys = {key for counts in columns.values() for key in counts}
    ranked = sorted(keys, key=lambda key: (-first.get(key, 0), key))
    rows: list[list[str | int | None]] = [
        [key or "(not known)", *(columns[name].get(key, 0) for name in names)]
        for key in ranked[:_MOST_LINES]
    ]
    if rest := ranked[_MOST_LINES:]:
        sums = [sum(columns[name].get(key, 0) for key in rest) for name in names]
        rows.append([f"{len(rest):,} others", *sums])
    return table([f"by {title}", *names], rows)


def _leaves(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [
            leaf
            for key, item in value.items()
            for leaf in _leaves(f"{path}.{key}" if path else str(key), item)
        ]
    return [(path, value)]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."
