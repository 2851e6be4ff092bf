"""May this configuration go on from that checkpoint, and how does its state come back?

Frozen keys say no, recorded ones are told. A state comes back bit for bit where the same engine at
the same stage on the same number of ranks saved it, and tensor by tensor everywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from configs.schema import ConfigError, ResumeClass
from pipeline.settings import Run
from pipeline.training.agreement import Agreed
from pipeline.training.checkpoints.checkpoint import State
from pipeline.training.checkpoints.state_files import open_state
from pipeline.training.engine import Engine
from preprocessing.storage import InputError

_OPTIONS = "deepspeed.options"


def check_resume(
    run: Run, state: State, digests: Mapping[str, str | None], tokenizer: str
) -> list[str]:
    """Compare a run with the checkpoint it is to go on from.

    Data comes at the beginnings of phases: examples sets that no phase has read yet, and sources
    of the corpus, may be added and changed. What the phases up to now read has a digest.

    Returns:
        The recorded changes, a sentence each.

    Raises:
        ConfigError: every frozen key that has changed, and data that is not the same.
    """
    leaves = run.resume_leaves()
    refused, recorded = [], []
    begun = state.phase - (state.position == 0)  # between two phases the next one is to come
    for key in sorted({*leaves, *state.leaves}):
        value, _ = leaves.get(key, (None, None))
        before = state.leaves.get(key)
        if before == value:
            continue
        resume = _resume_class(key, leaves)
        later = _future_phase(key, begun) or _unread(key, run, state, begun)
        change = f"{key}: {before!r} in the checkpoint, {value!r} now"
        if (resume == "frozen" and not later) or _moves(key, before, value, state):
            refused.append(change)
        elif resume != "free":
            recorded.append(change)
    for phase, digest in state.data.items():
        if int(phase) <= begun and digests.get(phase) != digest:
            refused.append(f"phases.{phase}: its examples are not the ones trained on so far")
    if tokenizer != state.tokenizer:
        refused.append("tokenizer: not the one trained with so far")
    if refused:
        raise ConfigError(
            [
                f"{run.output.directory}: a run of another configuration stands here:",
                *(f"  {change}" for change in refused),
                "Undo the changes, or give output.directory another place",
            ]
        )
    return recorded


def restore(run: Run, engine: Engine, checkpoint: Path, state: State) -> None:
    """Give an engine the state of a checkpoint, whatever engine wrote it; collective.

    Raises:
        InputError: the state is damaged, or not this model's.
    """
    if _same_form(run, state, engine.world_size):
        engine.load(checkpoint / engine.kind)
        return
    saved, problem = None, None
    try:
        saved = open_state(checkpoint, state)
    except InputError as error:
        problem = str(error)
    if problems := engine.agree(problem):
        raise Agreed("\n".join(problems))
    assert saved is not None
    engine.adopt(saved)


def _same_form(run: Run, state: State, world_size: int) -> bool:
    """Whether the engine's own files fit; stage 0 keeps all of it on every rank.

    Options may change how DeepSpeed lays its tensors out (``sub_group_size``).
    """
    if state.engine != run.train.engine:
        return False
    if state.engine == "local":
        return True
    return (
        state.zero_stage == run.deepspeed.zero_stage
        and (state.world_size == world_size or state.zero_stage == 0)
        and state.leaves.get(_OPTIONS) == run.resume_leaves()[_OPTIONS][0]
    )


def _resume_class(key: str, leaves: Mapping[str, tuple[object, ResumeClass]]) -> ResumeClass:
    """A key that is gone counts as what took its place: a part of it, or what it was part of."""
    for known, (_, resume) in leaves.items():
        if known == key or known.startswith(f"{key}.") or key.startswith(f"{known}."):
            return resume
    return "frozen"


def _unread(key: str, run: Run, state: State, begun: int) -> bool:
    """Whether a key speaks of data that was there for no phase up to now.

    That is an examples set that none of them reads, or a source of the corpus that is new.
    """
    if key.startswith("examples."):
        return not any(key.startswith(f"examples.{name}.") for name in _read_sets(state, begun))
    sources = (f"corpus.sources.{name}." for name in run.preparation.corpus.sources)
    new = [own for own in sources if f"{own}inputs" not in state.leaves]
    return any(key.startswith(own) for own in new)


def _read_sets(state: State, begun: int) -> set[str]:
    """The examples sets of the phases up to now."""
    read: set[str] = set()
    for key, value in state.leaves.items():
        found = re.match(r"phases\.(\d+)\.(?:(mixture)|(?:tasks\..+\.)?examples)$", key)
        if found and int(found[1]) <= begun and value is not None:
            read.update(value if found[2] else [value])
    return read


def _moves(key: str, before: object, value: object, state: State) -> bool:
    """Whether a phase that is over would end elsewhere, so that those behind it began elsewhere.

    Rows that were read would be read again, or none would read them. Between two phases the former
    one may still become longer: nothing stands behind it yet.
    """
    found = re.match(r"phases\.(\d+)\.steps$", key)
    if found is None or int(found.group(1)) >= state.phase:
        return False
    longer = isinstance(before, int) and isinstance(value, int) and value > before
    return not (longer and state.position == 0 and int(found.group(1)) == state.phase - 1)


def _future_phase(key: str, begun: int) -> bool:
    found = re.match(r"phases\.(\d+)\.", key)
    return found is not None and int(found.group(1)) > begun
