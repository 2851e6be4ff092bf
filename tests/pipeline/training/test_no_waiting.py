"""A step asks nothing of its tensors before its end: on a GPU every answer would be waited for.

On a CPU nothing waits, but what would is known by name: operators whose result a host has to see,
and methods that bring values to it. Copies between devices do not show here.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import Job, run_job
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import pipeline

WAITING = {
    "_local_scalar_dense",  # item, bool, float, int
    "is_nonzero",
    "equal",
    "nonzero",
    "nonzero_static",
    "masked_select",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
    "repeat_interleave",
    "bincount",
    "histc",
}
BRINGING = {"tolist", "numpy", "__array__", "cpu", "item", "__dlpack__"}
PACKAGE = Path(pipeline.__file__).parent

NORM = ("training/local_engine.py: step", 1)
"""The gradient's norm: whether the step is applied."""
SIMPLE = ("nn/masks.py: hides_nothing", 3)
"""Of each micro-batch, on a CPU alone: a GPU is not asked."""
ALLOWED: Mapping[str, dict[str, int]] = {
    # Right after the norm, when nothing is left to wait for: the number of steps, once in each of
    # two groups, and whether all elements are finite.
    "adamw": dict(
        (NORM, SIMPLE, ("optim/adamw.py: _counts", 2), ("optim/finite.py: _all_finite", 1))
    ),
    # On a CPU alone, where it spares the update.
    "lamb": dict((NORM, SIMPLE, ("optim/lamb.py: _move", 1))),
}
"""How often a step of three micro-batches asks for values, and where."""


class Waits:
    """Where values were asked for: file and function of ours, and how often."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def note(self) -> None:
        for frame in reversed(traceback.extract_stack()):
            path = Path(frame.filename)
            if path.is_relative_to(PACKAGE):
                self.found[f"{path.relative_to(PACKAGE)}: {frame.name}"] += 1
                return


class Operators(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        _, _, name = func._schema.name.partition("::")
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        if name in WAITING or by_mask:
            self._waits.note()
        return func(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in BRINGING - {"item"} or (name == "to" and "cpu" in args[1:]):
            self._waits.note()
        return func(*args, **(kwargs or {}))


def waits_of(work: Any) -> Counter[str]:
    waits = Waits()
    with Methods(waits), Operators(waits):
        work()
    return waits.found


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_step_asks_for_the_norm_and_then_runs_on(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    from pipeline.training.loop import Trainer

    step, found = Trainer.step, list[Counter[str]]()

    def watched(self: Trainer, number: int, fed: Any) -> Any:
        measured = []
        found.append(waits_of(lambda: measured.append(step(self, number, fed))))
        return measured[0]

    monkeypatch.setattr(Trainer, "step", watched)
    short = ("train.engine=local", "phases.0.steps=5", "phases.1.steps=1", "train.save_every=9")
    corrected = ("optimizer.bias_correction=false",) if optimizer == "adamw" else ()
    chosen = (f"optimizer={{kind: {optimizer}}}", *corrected, *short)
    run_job(recipe, Job(tmp_path / "run", chosen))
    assert len(found) == 6
    for counts in found[1:-1]:  # the first step makes states; the last one's batch is smaller
        assert counts == ALLOWED[optimizer]


def test_the_watch_sees_what_waits() -> None:
    mask, values = torch.tensor([True, False]), torch.tensor([1.0, 2.0])
    asking: list[Callable[[], object]] = [
        lambda: bool(values.sum() > 0),
        lambda: float(values[0]),
        values.tolist,
        values.numpy,
        lambda: values.to("cpu"),
        mask.nonzero,
        lambda: values[mask],
        lambda: torch.unique(values),
        lambda: torch.equal(values, values),
    ]
    for work in asking:
        noted = _Noted()
        with Methods(noted), Operators(noted):
            work()
        assert noted.times >= 1
    noted = _Noted()
    with Methods(noted), Operators(noted):
        _ = torch.where(mask, values, 0).masked_fill(mask, 1).sum() / values.clamp(min=1)
    assert noted.times == 0


class _Noted(Waits):
    """Counts what is asked for from anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def note(self) -> None:
        self.times += 1


def test_attention_and_losses_ask_for_nothing_on_the_way_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiled blocks get a mask of one form, as a GPU's: what is on the CPU only is left out."""
    from engine_cases import draw_batch

    from pipeline.models.bert import Bert, BertConfig
    from pipeline.objectives import build_objectives
    from pipeline.objectives.masked_lm import MaskedLMConfig
    from pipeline.objectives.next_sentence import NextSentenceConfig
    from pipeline.objectives.task import PretrainingTask

    model = Bert(
        BertConfig(
            family="bert",
            vocab_size=320,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_positions=48,
        )
    )
    model.attending.static = True
    objectives = build_objectives(
        (MaskedLMConfig(kind="masked_lm"), NextSentenceConfig(kind="next_sentence"))
    )
    task = PretrainingTask(model, objectives, sometimes=("masked_lm", "next_sentence"))
    batch, ones = draw_batch(0), torch.ones(2)

    def work() -> None:
        computed = task(batch, ones)
        computed.loss.backward()

    work()  # once, for what is made only once
    assert waits_of(work) == Counter()
    gradient: Tensor | None = model.embeddings.word.weight.grad
    assert gradient is not None
    assert gradient.any()
