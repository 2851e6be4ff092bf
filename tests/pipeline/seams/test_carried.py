"""What becomes of memory where a training does not simply go on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from seam_runs import TwinJob, objectives, run_twin
from small_run import records
from test_twins import causal_batch, draw_ids
from twins import MEMORY_LENGTH, StreamTwin

from configs.schema import ConfigError, load
from pipeline.data import RowSource, to_batch
from pipeline.objectives.task import PretrainingTask
from pipeline.sections import Fp16Config
from pipeline.settings import decode_run
from pipeline.training.agreement import Agreed, TrainingStopped
from pipeline.training.carried import Carried
from pipeline.training.checkpoints.checkpoint import MEMORY_FILE, Checkpoints
from pipeline.training.checkpoints.convert import convert
from pipeline.training.local_engine import LocalEngine
from pipeline.training.validating import evaluate_rows
from preprocessing.rows import RowSet

LOCAL = ("train.engine=local",)
LENGTH = 16


def stand_in(rank: int = 0, world_size: int = 1) -> Any:
    """What of an engine is asked; it hears no other rank."""
    return SimpleNamespace(
        rank=rank,
        world_size=world_size,
        device=torch.device("cpu"),
        task=SimpleNamespace(model=StreamTwin(50)),
        exchange=lambda value: [value],
    )


def memory_of(first: int, rows: int) -> dict[str, torch.Tensor]:
    """Each row says whose it is."""
    streams = torch.arange(first, first + rows)
    kept = StreamTwin(50).initial_memory(rows)
    return {
        name: torch.zeros_like(t) + streams.view(-1, *[1] * (t.dim() - 1))
        for name, t in kept.items()
    }


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_memory_is_dealt_by_stream_and_gathered_again(ranks: int) -> None:
    whole, found = memory_of(0, 12), {}
    batch = causal_batch(draw_ids(4, 4))
    for rank in range(ranks):
        carried = Carried(stand_in(rank, ranks), 4)
        carried.deal(whole, 12)
        for number in range(rank, 3, ranks):
            found[number] = carried.give(batch, number).memory["filled"].tolist()
        idle = carried.give(batch, 3 + rank).memory  # a weightless one
        assert not idle["filled"].any()
    assert [found[number] for number in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_gathered_memory_leaves_out_weightless_micro_batches() -> None:
    carried = Carried(stand_in(), 4)
    for number in (2, 0, 1, 3):
        carried.keep(number, memory_of(4 * number, 4))
    carried.settle(applied=True)
    gathered = carried.gather(12)
    assert all(tensor.equal(memory_of(0, 12)[name]) for name, tensor in gathered.items())


def test_a_step_that_is_not_applied_leaves_memory_as_it_was() -> None:
    carried, batch = Carried(stand_in(), 4), causal_batch(draw_ids(4, 4))
    assert carried.anew
    carried.keep(0, memory_of(0, 4))
    carried.settle(applied=False)
    assert carried.anew
    assert not carried.give(batch, 0).memory["filled"].any()
    carried.keep(0, memory_of(4, 4))
    carried.settle(applied=True)
    assert carried.give(batch, 0).memory["filled"].tolist() == [4, 5, 6, 7]
    carried.forget()
    assert carried.anew


def test_a_model_without_memory_is_given_none() -> None:
    engine = stand_in()
    engine.task.model.initial_memory = lambda rows: None
    carried, batch = Carried(engine, 4), causal_batch(draw_ids(4, 4))
    carried.keep(0, {})
    carried.settle(applied=True)
    assert not carried.used
    assert carried.give(batch, 0) is batch
    assert carried.gather(4) == {}


def train(recipe: Path, output: Path, *overrides: str, stop_at: int | None = None) -> None:
    run_twin(recipe, TwinJob("stream", output, (*LOCAL, *overrides), stop_at))


def filled(output: Path, step: int) -> set[int]:
    """How much of its memory each stream has in a checkpoint."""
    file = output / "checkpoints" / f"step-{step:08d}" / MEMORY_FILE
    return set(load_file(file)["filled"].tolist())


def told(output: Path) -> list[int]:
    """The steps at which memory is said to begin anew."""
    return [one["step"] for one in records(output, "event") if one["event"] == "memory"]


def same_records(output: Path, reference: Path) -> bool:
    return records(output, "train") == records(reference, "train")


def test_a_resumed_training_has_the_memory_of_the_one_that_went_on(
    recipe: Path, local: Path, tmp_path: Path
) -> None:
    train(recipe, tmp_path, stop_at=3)
    assert filled(tmp_path, 2) == {MEMORY_LENGTH}
    train(recipe, tmp_path)
    assert same_records(tmp_path, local / "stream")
    assert told(tmp_path) == []


def test_a_branch_takes_memory_along(recipe: Path, local: Path, tmp_path: Path) -> None:
    origin = local / "stream" / "checkpoints" / "step-00000004"
    train(recipe, tmp_path, f"train.init_from={{checkpoint: {origin}, what: everything}}")
    assert records(tmp_path, "train") == records(local / "stream", "train")[4:]
    assert told(tmp_path) == []


def test_the_portable_form_of_a_checkpoint_holds_memory(
    recipe: Path, local: Path, tmp_path: Path
) -> None:
    portable = convert(local / "stream" / "checkpoints" / "step-00000002", tmp_path / "portable")
    train(recipe, tmp_path / "run", f"train.init_from={{checkpoint: {portable}, what: everything}}")
    assert told(tmp_path / "run") == []
    assert records(tmp_path / "run", "train") == records(local / "stream", "train")[2:]


def test_a_step_computed_again_begins_with_the_same_memory(
    recipe: Path, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, poisoned = LocalEngine.backward, []

    def poison(self: LocalEngine, batch: Any, denominators: Any) -> Any:
        passed = backward(self, batch, denominators)
        if (batch.memory["filled"] == MEMORY_LENGTH).all() and not poisoned:
            poisoned.append(True)
            next(self.task.parameters()).grad.fill_(float("nan"))
        return passed

    monkeypatch.setattr(LocalEngine, "backward", poison)
    train(recipe, tmp_path, "train.guards.retries=1")
    events = [one["step"] for one in records(tmp_path, "event") if one["event"] == "retried"]
    assert events == [3]
    assert same_records(tmp_path, local / "stream")


def test_memory_begins_anew_behind_steps_that_are_passed_over(recipe: Path, tmp_path: Path) -> None:
    train(recipe, tmp_path, "train.skip=[[1, 3]]", "train.save_every=1", "train.keep_checkpoints=9")
    assert filled(tmp_path, 1) == {LENGTH}
    assert filled(tmp_path, 4) == {LENGTH}
    assert filled(tmp_path, 5) == {MEMORY_LENGTH}
    assert told(tmp_path) == [3]


def test_memory_begins_anew_with_the_segments_of_an_epoch(recipe: Path, tmp_path: Path) -> None:
    run = decode_run(load(recipe))
    rows = RowSet(run.preparation.examples_directory("stream"), "train", seed=5).num_rows[0]
    streams = rows // 3 // 4 * 4
    assert rows // streams == 3
    size = (f"phases.0.batch_rows={streams}", f"train.micro_batch_rows={streams}")
    train(recipe, tmp_path, *size, "train.save_every=1", "train.keep_checkpoints=9")
    sizes = [filled(tmp_path, step) for step in range(1, 7)]
    assert sizes == [{LENGTH}, {MEMORY_LENGTH}, {MEMORY_LENGTH}] * 2
    assert told(tmp_path) == []


def test_a_checkpoint_that_lost_its_memory_is_refused(
    recipe: Path, local: Path, tmp_path: Path
) -> None:
    shutil.copytree(local / "stream", tmp_path / "run")
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.set_back(4)
    (checkpoints.path(4) / MEMORY_FILE).unlink()
    with pytest.raises(Agreed, match=r"memory\.safetensors: missing, though it was saved"):
        train(recipe, tmp_path / "run")


def test_a_failed_step_is_written_down_with_its_memory(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training.dump import read_micro_batches

    backward = LocalEngine.backward

    def poison(self: LocalEngine, batch: Any, denominators: Any) -> Any:
        passed = backward(self, batch, denominators)
        if batch.memory["filled"].any():
            next(self.task.parameters()).grad.fill_(float("nan"))
        return passed

    monkeypatch.setattr(LocalEngine, "backward", poison)
    guards = ("train.guards.retries=0", "train.guards.max_skipped=0")
    with pytest.raises(TrainingStopped):
        train(recipe, tmp_path, *guards)
    (folder,) = (tmp_path / "failures").iterdir()
    written = [batch for _, _, batch in read_micro_batches(folder)]
    assert len(written) == 3
    assert all((batch.memory["filled"] == LENGTH).all() for batch in written)


def test_memory_of_shuffled_rows_is_refused(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="carries memory from batch to batch; give streams: true"):
        train(recipe, tmp_path, "phases.0.streams=false")


def test_streams_of_rows_that_do_not_follow_each_other_are_refused(recipe: Path) -> None:
    with pytest.raises(ConfigError, match=r"phases\.0\.streams: rows of 'pair' do not go on"):
        decode_run(load(recipe, ["phases.0.streams=true"]))
    with pytest.raises(ConfigError, match="with streams, give no batch_warmup"):
        decode_run(
            load(
                recipe,
                [
                    "phases.0.examples=stream",
                    "phases.0.streams=true",
                    "phases.0.batch_warmup=[{batch_rows: 4, steps: 1}]",
                ],
            )
        )


def test_validation_carries_memory_from_nothing_on(recipe: Path) -> None:
    """The sums are those of a loop that keeps the memory of each stream by hand."""
    run = decode_run(load(recipe))
    torch.manual_seed(0)
    task = PretrainingTask(StreamTwin(run.model.vocab_size), objectives("stream"))
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    engine = LocalEngine(
        task, optimizer, precision="fp32", gradient_clipping=0.0, fp16=Fp16Config()
    )
    corruption = run.preparation.examples["stream"].corruption
    directory = run.preparation.examples_directory("stream")
    source = RowSource(directory, "heldout", corruption, run.seed, None)
    rows = source.open()
    length = rows.num_rows // 4
    assert length >= 3
    total, memory = torch.zeros(1, 3), None
    for turn in range(length):
        read = to_batch(rows.read(turn + length * np.arange(4), epoch=0))
        passed = engine.evaluate(replace(read, memory=memory))
        total, memory = total + passed.statistics, passed.memory
    assert evaluate_rows(engine, source, 4, None).equal(total)
    assert evaluate_rows(engine, source, 4, 8)[0, 1] == 8 * (LENGTH - 1)
