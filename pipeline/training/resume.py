"""May this configuration go on from that checkpoint? Frozen keys say no, recorded ones are told."""

from __future__ import annotations

import re
from collections.abc import Mapping

from configs.schema import ConfigError
from pipeline.settings import Run
from pipeline.training.checkpoint import State


def check_resume(run: Run, state: State, digests: Mapping[str, str], tokenizer: str) -> list[str]:
    """Compare a run with the checkpoint it is to go on from.

    Returns:
        The recorded changes, a sentence each.

    Raises:
        ConfigError: every frozen key that has changed, and data that is not the same.
    """
    leaves = run.resume_leaves()
    refused, recorded = [], []
    for key in sorted({*leaves, *state.leaves}):
        value, resume = leaves.get(key, (None, "frozen"))
        before = state.leaves.get(key)
        if before == value:
            continue
        change = f"{key}: {before!r} in the checkpoint, {value!r} now"
        if resume == "frozen" and not _future_phase(key, state.phase):
            refused.append(change)
        elif resume != "free":
            recorded.append(change)
    for phase, digest in state.data.items():
        if int(phase) <= state.phase and digests.get(phase) != digest:
            refused.append(f"phases.{phase}: its examples are not the ones trained on so far")
    if tokenizer != state.tokenizer:
        refused.append("tokenizer: not the one trained with so far")
    if state.engine != run.train.engine:
        refused.append(f"train.engine: the checkpoint was written by '{state.engine}'")
    if state.engine == "deepspeed" and state.zero_stage != run.deepspeed.zero_stage:
        refused.append(
            f"deepspeed.zero_stage: the checkpoint was written at stage {state.zero_stage}, and "
            "DeepSpeed's state does not move between stages"
        )
    if refused:
        raise ConfigError(
            [
                f"{run.output.directory}: a run of another configuration stands here:",
                *(f"  {change}" for change in refused),
                "Undo the changes, or give output.directory another place",
            ]
        )
    return recorded


def _future_phase(key: str, phase: int) -> bool:
    found = re.match(r"phases\.(\d+)\.", key)
    return found is not None and int(found.group(1)) > phase
