"""Ranks that agree, before the training and in it; where they do not, one of them says so.

Every collective assumes that all ranks do the same. A rank with another configuration, other data
or another checkpoint does not fail: it trains something that nobody asked for, or waits for ever.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from configs.schema import ConfigError
from pipeline.data import Data
from pipeline.settings import Run
from preprocessing.storage import InputError

Result = TypeVar("Result")

_PER_HOST = ("corpus.directory", "corpus.inputs", "export.directory")
"""Places that each host may know under a name of its own; what lies there is compared."""


class Agreed(InputError):
    """A problem that all ranks know of and raise alike, so that one of them can tell it."""


class TrainingStopped(RuntimeError):
    """The training ends as failed, on all ranks alike; the message says why."""


def exchange(value: Any) -> list[Any]:
    """What each rank says, by rank, on all ranks; without a process group there is one."""
    if not torch.distributed.is_initialized():
        return [value]
    said: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(said, value)
    return said


def together(action: Callable[[], Result]) -> Result:
    """Do what each rank may refuse, so that all ranks refuse together.

    Raises:
        Agreed: what was refused, and by which ranks where not all did.
    """
    problem = None
    try:
        result = action()
    except (ConfigError, InputError) as error:
        problem = str(error)
    refuse(problem)
    return result


def refuse(problem: str | None) -> None:
    """Stop all ranks where one of them has a problem.

    Raises:
        Agreed: what it is, and which ranks have it where not all do.
    """
    said = exchange(problem)
    sentences = [
        text if len(ranks) == len(said) else f"{_in_words(ranks)}: {text}"
        for text, ranks in _by_value(said).items()
        if text
    ]
    if sentences:
        raise Agreed("\n".join(sentences))


def compare_ranks(traits: Mapping[str, Any]) -> None:
    """Require of all ranks the same traits.

        the ranks do not agree; ...
          seed: 3 on ranks 0-2, 4 on rank 3

    Digests are compared first, so that agreement costs a few bytes a rank.

    Raises:
        Agreed: every trait that differs, its values and their ranks.
    """
    text = json.dumps(traits, sort_keys=True, default=str)
    if len(set(exchange(hashlib.sha256(text.encode()).hexdigest()))) == 1:
        return
    by_rank = exchange(json.loads(text))
    lines = []
    for name in sorted(set().union(*by_rank)):
        values = _by_value([json.dumps(of_rank.get(name)) for of_rank in by_rank])
        if len(values) > 1:
            told = ", ".join(f"{value} on {_in_words(ranks)}" for value, ranks in values.items())
            lines.append(f"  {name}: {told}")
    problem = "the ranks do not agree; start all of them with the same files and the same versions:"
    raise Agreed("\n".join([problem, *lines]))


def traits_of(run: Run, versions: Mapping[str, str]) -> dict[str, Any]:
    """The keys of a configuration that all ranks must have in common, and versions of packages."""
    apart = _PER_HOST if run.output.shared else (*_PER_HOST, "output.directory")
    leaves = {key: value for key, (value, _) in run.resume_leaves().items() if key not in apart}
    return {
        **leaves,
        **{f"version of {package}": version for package, version in versions.items()},
    }


def digests_of(data: Data) -> dict[str, str]:
    """The data that all ranks must have in common."""
    phases = {f"digest of phases.{phase}": digest for phase, digest in data.digests.items()}
    return {**phases, "digest of the tokenizer": data.tokenizer}


def compare_progress(step: int, learning_rate: float) -> None:
    """Require that all ranks did the same step at the same rate; its rows follow from its number.

    Raises:
        TrainingStopped: they did not.
    """
    said = exchange((step, learning_rate))
    if len(set(said)) > 1:
        told = "; ".join(
            f"{_in_words(ranks)} at step {at}, learning rate {rate:.6g}"
            for (at, rate), ranks in _by_value(said).items()
        )
        raise TrainingStopped(
            f"the ranks are not at the same step and rate: {told}; nothing was saved since "
            "the last checkpoint; start again from there"
        )


def _by_value(said: Sequence[Any]) -> dict[Any, list[int]]:
    """Ranks by what they say, in the order of the first that says it."""
    ranks: dict[Any, list[int]] = {}
    for rank, value in enumerate(said):
        ranks.setdefault(value, []).append(rank)
    return ranks


def _in_words(ranks: Sequence[int]) -> str:
    """``[0, 1, 2, 5]`` is ``ranks 0-2, 5``."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and runs[-1][-1] == rank - 1:
            runs[-1][1:] = [rank]
        else:
            runs.append([rank])
    told = ", ".join("-".join(map(str, run)) for run in runs)
    return f"rank {told}" if len(ranks) == 1 else f"ranks {told}"
