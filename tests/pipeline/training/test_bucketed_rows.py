"""Rows of several lengths: one length a step for all ranks, as many tokens in every step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mixed_run import expected_fingerprints
from small_run import Job, records, run_jobs, write_corpus

from configs.schema import load
from pipeline.data import Deal, TaskSource
from pipeline.data import load as load_batches
from pipeline.inspecting import read_step
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run, decode_run
from preprocessing.commands import run_preparation
from preprocessing.order import whole_shares
from preprocessing.storage import InputError

RECIPE = """
seed: 3
corpus: {{directory: {root}/data, inputs: ["{root}/text.txt"],
         validation: {{heldout: {{share: 0.1}}}}}}
tokenizer: {{kind: wordpiece, vocab_size: 300}}
examples:
  rows: {{length: 64, layout: {{kind: blocks}}, corruption: {{kind: masked}}, buckets: [{buckets}]}}
model: {{family: bert, vocab_size: 320, hidden_size: 32, num_layers: 2, num_heads: 2,
         intermediate_size: 64, max_positions: 64, next_sentence: false}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant, warmup_steps: 2}}
phases:
  - {{examples: rows, block: 12, steps: 24, batch_rows: 4, learning_rate: 4e-3,
      batch_warmup: [{{batch_rows: 2, steps: 4}}]}}
train: {{micro_batch_rows: 2, log_every: 1, evaluate_every: 50, save_every: 3, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 8, micro_batch_rows: 4}}
output: {{directory: {root}/run}}
"""


def write_recipe(root: Path, buckets: str) -> Path:
    if not (root / "text.txt").exists():
        write_corpus(root / "text.txt", documents=160, seed=5)
    recipe = root / f"{buckets.replace(', ', '-')}.yaml"
    recipe.write_text(RECIPE.format(root=root, buckets=buckets))
    return recipe


def prepared(recipe: Path) -> Run:
    run = decode_run(load(recipe))
    for _ in run_preparation(run.preparation):
        pass
    return run


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = write_recipe(tmp_path_factory.mktemp("lengths"), "32")
    prepared(recipe)
    return recipe


@pytest.fixture(scope="module")
def run(recipe: Path) -> Run:
    return decode_run(load(recipe))


def source_of(run: Run) -> TaskSource:
    source = open_data(run).phases[0]
    assert isinstance(source, TaskSource)
    return source


def batches(run: Run, step: int, ranks: int) -> list[list[tuple[int, ...]]]:
    """Shape and fingerprint of every micro-batch of a step, rank by rank."""
    timeline = Timeline(run.phases, run.schedule)
    rows = timeline.stretch(step).batch_rows
    found = []
    for rank in range(ranks):
        deal = Deal(timeline.position(step), 1, rows, 2, rank, ranks)
        ((*own,),) = load_batches(source_of(run), deal, workers=0, pin=False)
        found.append([(*one.batch.ids.shape, one.fingerprint) for one in own])
    return found


def test_a_step_has_one_length_and_every_step_as_many_tokens(run: Run) -> None:
    lengths = []
    for step in range(4, 16):
        (shapes,) = batches(run, step, 1)
        assert len({length for _, length, _ in shapes}) == 1
        assert sum(rows * length for rows, length, _ in shapes) == 4 * 64
        lengths.append(shapes[0][1])
    assert set(lengths) == {32, 64}


def test_all_ranks_turn_to_the_same_length_and_see_what_one_would(run: Run) -> None:
    for step in (0, 5, 9):
        ((*alone,),) = batches(run, step, 1)
        for ranks in (2, 3):
            dealt = batches(run, step, ranks)
            for turn in zip(*dealt, strict=True):
                assert len({shape[:2] for shape in turn}) == 1
            found = [one for own in dealt for one in own if one[2]]
            assert sorted(found) == sorted(alone)


def test_lengths_have_the_shares_of_their_rows_in_every_block(run: Run) -> None:
    source = source_of(run)
    rows = [one.open().num_rows for one in source.sets]
    expected = whole_shares([rows[0] / 2, rows[1]], 12)
    assert source.order.steps.counts == expected
    assert source.rows_at == (2, 1)
    for block in (0, 7):
        steps = np.arange(12 * block, 12 * block + 12)
        tasks = source.order.steps.locate(steps)[0]
        assert tuple(np.bincount(tasks, minlength=2)) == expected


def test_no_row_of_a_length_comes_twice_before_all_have_come(run: Run) -> None:
    source, timeline = source_of(run), Timeline(run.phases, run.schedule)
    reader = source.open()
    seen: dict[int, list[tuple[int, int]]] = {}
    for step in range(timeline.total_steps):
        first, rows = timeline.position(step), timeline.stretch(step).batch_rows
        for begin in range(first, first + rows, 2):
            for found in reader.find(np.arange(begin, begin + 2)):
                own = seen.setdefault(found.of.rows.shape.length, [])
                own += [(found.epoch, int(row)) for row in found.rows]
    for own in seen.values():
        assert len(set(own)) == len(own)
        epochs = [epoch for epoch, _ in own]
        assert epochs == sorted(epochs)


def test_validation_is_told_by_length_and_inspection_shows_the_step(run: Run) -> None:
    assert set(open_data(run).validation) == {"heldout-32", "heldout-64"}
    for name, source in open_data(run).validation.items():
        assert source.open().rows.shape.length == int(name.rpartition("-")[2])
    shown = read_step(run, 6)
    ((*alone,),) = batches(run, 5, 1)
    assert shown["task"] == f"length-{alone[0][1]}"
    assert shown["fingerprint"] == sum(one[2] for one in alone)
    assert [len(one["rows"]) for one in shown["micro_batches"]] == [one[0] for one in alone]


def test_a_length_with_too_few_rows_is_refused_with_a_way_out(recipe: Path) -> None:
    run = prepared(write_recipe(recipe.parent, "8, 32"))
    with pytest.raises(InputError, match=r"rows of 8 tokens are fewer.*leave 8 out"):
        open_data(run)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_more_ranks(recipe: Path, run: Run, tmp_path: Path) -> None:
    run_jobs(recipe, [Job(tmp_path, stop_at=8)], ranks=2)
    run_jobs(recipe, [Job(tmp_path)], ranks=3)
    seen = {int(one["step"]): int(one["fingerprint"]) for one in records(tmp_path, "train")}
    assert [seen[step + 1] for step in range(24)] == expected_fingerprints(run)
    sets = {one["set"] for one in records(tmp_path, "validation")}
    assert sets == {"heldout-32", "heldout-64"}
