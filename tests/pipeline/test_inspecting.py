"""The batch of a step as ``lexmill inspect`` shows it is the one that was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.inspecting import read_step, show_step
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run
from preprocessing.storage import InputError, Manifest, open_shard
from preprocessing.tokens import TokenStore

Recipe = Callable[..., Run]
STEP = 7


def train_records(run: Run) -> list[dict[str, float]]:
    lines = (run.output.directory / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


def test_the_fingerprint_is_that_of_the_training(trained: Run) -> None:
    logged = train_records(trained)
    assert len(logged) > 1
    for record in logged:
        shown = read_step(trained, int(record["step"]))
        assert shown["fingerprint"] == record["fingerprint"]


@pytest.mark.parametrize("examples", ["pairs", "packed", "static"])
def test_rows_are_those_of_the_batch(recipe: Recipe, examples: str) -> None:
    run = recipe([f"phases.0.examples={examples}"])
    shown = read_step(run, STEP)
    position = Timeline(run.phases, run.schedule).position(STEP - 1)
    arrays = open_data(run).phases[0].open().arrays(range(position, position + 16))
    (micro_batch,) = shown["micro_batches"]

    assert shown["position"] == position
    assert len(micro_batch["rows"]) == 16
    for number, row in enumerate(micro_batch["rows"]):
        assert row["ids"] == arrays.ids[number].tolist()
        assert row["sequence_ids"] == arrays.sequence_ids[number].tolist()
        assert len(row["sequences"]) == arrays.sequence_ids[number].max()
    labels = arrays.targets["masked_lm"].labels
    assert sum(len(row["targets"]) for row in micro_batch["rows"]) == (labels >= 0).sum()


def test_documents_are_those_that_the_tokens_came_from(recipe: Recipe) -> None:
    """With the truth put back, each sequence is its documents' tokens with special ones around."""
    run = recipe(["phases.0.examples=packed"])
    store = TokenStore(run.preparation.tokens_directory, "train")
    texts = {}
    directory = run.preparation.clean_directory
    for shard in Manifest.read(directory).of("train"):
        reader = open_shard(directory / shard.name)
        for index in range(reader.num_record_batches):
            for one in reader.get_batch(index).to_pylist():
                texts[one["id"].hex()] = one
    (micro_batch,) = read_step(run, STEP)["micro_batches"]
    reader_ = open_data(run).phases[0].open()
    position = Timeline(run.phases, run.schedule).position(STEP - 1)
    for row, found in zip(
        micro_batch["rows"],
        (reader_.find(np.array([position + number]))[0] for number in range(16)),
        strict=True,
    ):
        stored = found.of.rows.read(found.epoch, found.rows).sequences
        for number, sequence in enumerate(row["sequences"]):
            expected = [2]
            for one in sequence["documents"]:
                begin, end = one["tokens"]
                expected += [*store.ids(one["document"])[begin:end].tolist(), 3]
                assert texts[one["id"]]["source"] == one["source"]
                assert texts[one["id"]]["offset"] == one["offset"]
            own = slice(int(stored.offsets[number]), int(stored.offsets[number + 1]))
            assert stored.tokens[own].tolist() == expected


def test_a_mixture_and_its_tasks_are_shown(recipe: Recipe) -> None:
    common = "steps: 8, batch_rows: 16, learning_rate: 1e-2, block: 8"
    mixed = recipe([f"phases=[{{mixture: {{pairs: 1, packed: 1}}, {common}}}]"])
    (micro_batch,) = read_step(mixed, STEP)["micro_batches"]
    assert sorted(row["examples"] for row in micro_batch["rows"]) == ["packed"] * 8 + ["pairs"] * 8
    tasks = "tasks: {a: {examples: pairs, weight: 1}, b: {examples: packed, weight: 1}}"
    of_task = recipe([f"phases=[{{{tasks}, {common}}}]"])
    seen = [read_step(of_task, step) for step in range(1, 9)]
    assert sorted(one["task"] for one in seen) == ["a"] * 4 + ["b"] * 4
    for one in seen:
        names = {row["examples"] for own in one["micro_batches"] for row in own["rows"]}
        assert names == {{"a": "pairs", "b": "packed"}[one["task"]]}


def test_a_run_is_found_by_its_directory(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(trained.output.directory)
    assert main(["inspect", target, "--step", str(STEP), "--json"]) == 0
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert plain["micro_batches"] == read_step(trained, STEP)["micro_batches"]
    assert main(["inspect", trained.name, "--step", str(STEP)]) == 0
    out = capsys.readouterr().out
    assert f"step {STEP}: phase 0" in out
    assert out.count("train row") == 16
    assert "corpus.jsonl at" in out
    assert "not what the run was trained on" not in out


def test_a_batch_that_was_not_trained_on_is_told_from_one_that_was(
    trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    logged = int(train_records(trained)[-1]["step"])
    other = ["inspect", trained.name, "phases.0.examples=packed", "--step", str(logged)]
    assert main(other) == 0
    assert "this is not what the run was trained on in that step" in capsys.readouterr().out
    shown = read_step(trained, logged)
    assert shown["trained_fingerprint"] == shown["fingerprint"]


def refused(run: Run, steps: Sequence[int]) -> list[str]:
    problems = []
    for step in steps:
        with pytest.raises(InputError) as caught:
            read_step(run, step)
        problems.append(str(caught.value).partition(": ")[2])
    return problems


def test_steps_without_a_batch_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert refused(recipe(), (0, 9)) == [
        "step 0 is none of its steps 1 to 8",
        "step 9 is none of its steps 1 to 8",
    ]
    passed = recipe(["train.skip=[[2, 5]]"])
    assert refused(passed, (3, 5)) == [
        "step 3 is passed over, and so are those up to 5",
        "step 5 is passed over, and so are those up to 5",
    ]
    assert read_step(passed, 6)["step"] == 6
    with pytest.raises(InputError, match="neither a recipe"):
        show_step(str(tmp_path), [], 1, as_json=True)
    assert main(["inspect", recipe().name, "--step", "2", "--rows", "0:3"]) == 2
