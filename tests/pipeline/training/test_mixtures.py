"""Phases that read several examples sets, row by row or task by task."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mixed_run import expected_fingerprints, prepared, write_recipe
from safetensors.torch import load_file
from small_run import Job, largest_difference, records, run_job, run_jobs, weights

from configs.schema import ConfigError, load
from pipeline.data import Deal, MixedSource, OpenRows, TaskSource
from pipeline.data import load as load_batches
from pipeline.opening import _common_shape, _open_set, open_data
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.checkpoint import State
from pipeline.training.checkpoints.resume import check_resume
from preprocessing.corruption.unilm import UnilmConfig
from preprocessing.storage import MANIFEST, InputError, file_digest
from preprocessing.vocabulary import Vocabulary

RATE = "learning_rate: 4e-3"
MIXTURE = f"mixture: {{first: 1, second: 1}}, block: 40, steps: 6, batch_rows: 24, {RATE}"
TASKS = (
    "tasks: {pairs: {examples: first, weight: 1}, blocks: {examples: blocks, weight: 2},"
    " order: {examples: second, weight: 1, objectives: [next_sentence]}},"
    f" block: 8, steps: 16, batch_rows: 16, {RATE}, batch_warmup: [{{batch_rows: 8, steps: 3}}]"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("mixed")
    return prepared(write_recipe(root, "recipe.yaml", ("first", "second"), (MIXTURE, TASKS)))


def test_weights_are_shares_of_tokens(run: Run) -> None:
    source = open_data(run).phases[0]
    assert isinstance(source, MixedSource)
    reader = source.open()
    tokens = [0, 0]
    directories = [one.directory for one in source.sets]
    for found in reader.find(np.arange(40 * 30)):
        number = directories.index(found.of.source.directory)
        sequences = found.of.rows.read(found.epoch % len(found.of.rows.num_rows), found.rows)
        tokens[number] += len(sequences.sequences.tokens)
    # Within a block of 40 rows, to half a row.
    assert tokens[0] / sum(tokens) == pytest.approx(0.5, abs=0.5 / 40 + 0.01)
    assert source.order.block == 40
    assert source.order.counts[0] != source.order.counts[1]


def test_shares_are_exact_in_every_block_and_sources_are_read_in_their_own_order(run: Run) -> None:
    source = open_data(run).phases[0]
    assert isinstance(source, MixedSource)
    reader = source.open()
    alone = [one.open() for one in source.sets]
    seen = [0, 0]
    for block in range(12):
        positions = np.arange(40 * block, 40 * (block + 1))
        found = reader.find(positions)
        for number, one in enumerate(source.sets):
            own = [part for part in found if part.of.source.directory == one.directory]
            rows = [(part.epoch, row) for part in own for row in part.rows.tolist()]
            assert len(rows) == source.order.counts[number]
            expected = alone[number].find(seen[number] + np.arange(len(rows)))
            assert rows == [(part.epoch, row) for part in expected for row in part.rows.tolist()]
            seen[number] += len(rows)
        places = np.concatenate([part.places for part in found])
        assert sorted(places.tolist()) == list(range(40))


def test_an_epoch_of_a_source_holds_each_of_its_rows_once(run: Run) -> None:
    source = open_data(run).phases[0]
    assert isinstance(source, MixedSource)
    first = source.sets[0].open()
    (size,) = first.rows.num_rows
    needed = next(n for n in range(10**6) if source.order.count(0, n) == size)
    rows = np.concatenate(
        [
            part.rows
            for part in source.open().find(np.arange(needed))
            if part.of.source.directory == source.sets[0].directory
        ]
    )
    assert (np.bincount(rows, minlength=size) == 1).all()


def test_rows_stand_at_their_positions(run: Run) -> None:
    """A micro-batch is its rows one below the other, wherever they come from."""
    source = open_data(run).phases[0]
    reader = source.open()
    whole = reader.arrays(range(60, 84))
    for number in range(24):
        one = reader.arrays(range(60 + number, 61 + number))
        assert np.array_equal(whole.ids[number : number + 1], one.ids)
        assert np.array_equal(whole.sequence_ids[number : number + 1], one.sequence_ids)
        for name, targets in whole.targets.items():
            own = targets.indices // 32 == number
            own &= targets.labels >= 0
            real = one.targets[name].labels >= 0
            assert np.array_equal(targets.indices[own] % 32, one.targets[name].indices[real])
            assert np.array_equal(targets.labels[own], one.targets[name].labels[real])


@pytest.mark.parametrize("phase", [0, 1])
def test_workers_and_ranks_make_no_difference_to_mixtures(run: Run, phase: int) -> None:
    source = open_data(run).phases[phase]
    rows = (24, 16)[phase]
    whole = Deal(first_position=24, steps=12, batch_rows=rows, micro_batch_rows=8, rank=0,
                 world_size=1)  # fmt: skip
    alone = list(load_batches(source, whole, workers=0, pin=False))
    worked = list(load_batches(source, whole, workers=1 - phase, pin=False))
    ranks = [
        list(load_batches(source, replace(whole, rank=rank, world_size=3), workers=0, pin=False))
        for rank in range(3)
    ]
    for step in range(12):
        prints = [batch.fingerprint for batch in alone[step]]
        assert [batch.fingerprint for batch in worked[step]] == prints
        dealt = {b.number: b.fingerprint for rank in ranks for b in rank[step] if b.fingerprint}
        assert [dealt[number] for number in range(rows // 8)] == prints


def test_tasks_have_their_shares_of_steps_and_all_targets(run: Run) -> None:
    source = open_data(run).phases[1]
    assert isinstance(source, TaskSource)
    assert source.names == ("blocks", "order", "pairs")
    assert source.trained == (
        frozenset({"masked_lm"}),
        frozenset({"next_sentence"}),
        frozenset({"masked_lm", "next_sentence"}),
    )
    for block in range(5):
        steps = [source.order.task(step) for step in range(8 * block, 8 * (block + 1))]
        assert np.bincount(steps).tolist() == [4, 2, 2]
    reader = source.open()
    position = 0
    for step in range(16):
        task = source.order.task(step)
        arrays = reader.arrays(range(position, position + 8))
        position += 8 if step < 3 else 16
        assert arrays.ids.shape[1] == (48, 32, 32)[task]
        assert set(arrays.targets) == {"masked_lm", "next_sentence"}
        assert bool((arrays.targets["next_sentence"].labels >= 0).any()) == (task > 0)


def test_a_task_reads_its_rows_one_behind_the_other(run: Run) -> None:
    """Across the stretches of the batch warmup, and whatever other tasks come in between."""
    source = open_data(run).phases[1]
    assert isinstance(source, TaskSource)
    reader, alone = source.open(), [one.open() for one in source.sets]
    read: list[list[int]] = [[], [], []]
    position = 0
    for step in range(16):
        rows = 8 if step < 3 else 16
        for begin in range(position, position + rows, 8):
            for part in reader.find(np.arange(begin, begin + 8)):
                read[source.order.task(step)] += part.rows.tolist()
        position += rows
    for own, one in zip(read, alone, strict=True):
        expected = [row for part in one.find(np.arange(len(own))) for row in part.rows.tolist()]
        assert own == expected
    assert isinstance(alone[0], OpenRows)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run, list[int]]:
    """A run, the same with a source, a set and another mixture for its second phase, and what
    the first one was to read before those came."""
    root = tmp_path_factory.mktemp("grown")
    phases = (
        f"mixture: {{first: 1, second: 1}}, block: 40, steps: 6, batch_rows: 24, {RATE}",
        f"mixture: {{first: 1, second: 1}}, block: 16, steps: 4, batch_rows: 16, {RATE}",
    )
    before = prepared(write_recipe(root, "recipe.yaml", ("first", "second"), phases))
    planned = expected_fingerprints(before)
    changed = phases[1].replace(
        "{first: 1, second: 1}", "{first: 1, second: 3, third: 2}, mixture_alpha: 0.5"
    )
    sources = ("first", "second", "third")
    after = prepared(write_recipe(root, "grown.yaml", sources, (phases[0], changed)))
    return before, after, planned


def saved(run: Run, phase: int) -> State:
    """What a checkpoint within a phase remembers."""
    data = open_data(run)
    return State(
        step=4,
        phase=phase,
        position=16,
        seed=run.seed,
        engine="local",
        world_size=1,
        zero_stage=None,
        data=data.digests,
        tokenizer=data.tokenizer,
        leaves={key: value for key, (value, _) in run.resume_leaves().items()},
        run_id="id",
        weights="w",
        files={},
        parts=(0,),
    )


def test_data_added_at_a_phase_boundary_leaves_what_was_begun_as_it_was(
    grown: tuple[Run, Run, list[int]],
) -> None:
    before, after, planned = grown
    expected, state = expected_fingerprints(after), saved(before, 0)
    data = open_data(after)
    changes = check_resume(after, state, data.digests_like(state.data), data.tokenizer)

    assert expected[:6] == planned[:6]
    assert expected[6:] != planned[6:]
    changed = {change.split(":")[0] for change in changes}
    assert {"phases.1.mixture", "phases.1.mixture_alpha"} <= changed
    assert any(key.startswith("corpus.sources.third.") for key in changed)
    assert any(key.startswith("examples.third.") for key in changed)
    assert all("third" in key or key.startswith("phases.1.") for key in changed)
    late = saved(before, 1)
    with pytest.raises(ConfigError, match=r"phases\.1: its examples are not the ones"):
        check_resume(after, late, data.digests_like(late.data), data.tokenizer)


HEADS = {"next_sentence": "heads.next_sentence.", "masked_lm": "heads.masked_lm."}
TASK_STEPS = 6
ALONE = (
    f"phases=[{{{TASKS.replace('steps: 16', f'steps: {TASK_STEPS}')}}}]",
    "train.save_every=1",
    "train.keep_checkpoints=99",
)


def check_heads(run: Run, output: Path) -> None:
    """What a task does not train has the same bits after its steps as before."""
    source = open_data(decode_run(load(run.name, ALONE))).phases[0]
    assert isinstance(source, TaskSource)
    weights = [
        load_file(output / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        for step in range(1, TASK_STEPS + 1)
    ]
    tasks = {source.order.task(step) for step in range(1, TASK_STEPS)}
    assert tasks == {0, 1, 2}
    for step in range(1, TASK_STEPS):
        trained = source.trained[source.order.task(step)]
        for objective, head in HEADS.items():
            for name in (name for name in weights[0] if name.startswith(head)):
                moved = not weights[step][name].equal(weights[step - 1][name])
                assert moved == (objective in trained), (step, name)
        assert not weights[step]["blocks.0.feed_forward.up.weight"].equal(
            weights[step - 1]["blocks.0.feed_forward.up.weight"]
        )


def test_what_only_other_tasks_train_stays_as_it_is(run: Run, tmp_path: Path) -> None:
    run_job(Path(run.name), Job(tmp_path, (*ALONE, "train.engine=local")))
    check_heads(run, tmp_path)
    source = open_data(decode_run(load(run.name, ALONE))).phases[0]
    for record in records(tmp_path, "train"):
        has_pairs = source.objectives(int(record["step"]) - 1) != {"masked_lm"}
        assert ("next_sentence_loss" in record) == has_pairs
    sets = {record["set"] for record in records(tmp_path, "validation")}
    assert sets == {"heldout-blocks", "heldout-first", "heldout-second"}


@pytest.mark.slow
def test_tasks_are_the_same_at_every_stage(run: Run, tmp_path: Path) -> None:
    """Three micro-batches do not divide over two ranks in the first steps; stage 3 gathers heads
    that have nothing to do."""
    names = ("local", "1", "3")
    run_job(Path(run.name), Job(tmp_path / "local", (*ALONE, "train.engine=local")))
    jobs = [Job(tmp_path / stage, (*ALONE, f"deepspeed.zero_stage={stage}")) for stage in names[1:]]
    run_jobs(Path(run.name), jobs, 2)
    prints = [[r["fingerprint"] for r in records(tmp_path / name, "train")] for name in names]
    assert prints[1:] == prints[:1] * 2
    for stage in names[1:]:
        check_heads(run, tmp_path / stage)
        # Measured: 3e-7 at most.
        assert largest_difference(weights(tmp_path / stage), weights(tmp_path / "local")) < 1e-5


@pytest.mark.slow
def test_a_run_goes_on_with_added_data_on_other_ranks(
    grown: tuple[Run, Run, list[int]], tmp_path: Path
) -> None:
    before, after, planned = grown
    run_jobs(Path(before.name), [Job(tmp_path, stop_at=3)], 2)
    run_jobs(Path(after.name), [Job(tmp_path, stop_at=8)], 3)
    run_jobs(Path(after.name), [Job(tmp_path)], 2)
    seen = {int(r["step"]): int(r["fingerprint"]) for r in records(tmp_path, "train")}

    assert [seen[step] for step in range(1, 11)] == expected_fingerprints(after)
    assert [seen[step] for step in range(1, 7)] == planned[:6]


@pytest.mark.parametrize(
    "change",
    [
        "phases.0.mixture={first: 2, second: 1}",
        "phases.0.block=20",
        "examples.second.pack=false",
        "corpus.sources.first.language=en",
    ],
)
def test_what_has_been_read_may_not_change(grown: tuple[Run, Run, list[int]], change: str) -> None:
    _, after, _ = grown
    state = saved(after, 0)
    changed = decode_run(load(after.name, [change]))
    key = re.escape(change.partition("=")[0])
    with pytest.raises(ConfigError, match=key):
        check_resume(changed, state, state.data, state.tokenizer)


def test_digests_of_manifests_in_older_checkpoints_still_count(run: Run) -> None:
    single = f"phases=[{{examples: first, steps: 4, batch_rows: 8, {RATE}}}]"
    older = decode_run(load(run.name, [single]))
    data = open_data(older)
    manifest = file_digest(older.preparation.examples_directory("first") / MANIFEST)
    state = replace(saved(older, 0), data={"0": manifest})
    assert data.digests["0"] != manifest
    assert check_resume(older, state, data.digests_like(state.data), data.tokenizer) == []
    other = replace(state, data={"0": "0" * 32})
    with pytest.raises(ConfigError, match="not the ones trained on"):
        check_resume(older, other, data.digests_like(other.data), data.tokenizer)


def test_sets_that_do_not_go_together_are_refused(run: Run) -> None:
    def opened(*phases: str) -> None:
        open_data(decode_run(load(run.name, [f"phases=[{{{', '.join(phases)}}}]"])))

    common = f"steps: 4, batch_rows: 8, {RATE}"
    with pytest.raises(ConfigError, match="'blocks' has no labels for the model's"):
        opened("mixture: {first: 1, blocks: 1}", common)
    with pytest.raises(InputError, match=r"'second' gets no row in a block of 10; raise"):
        opened("mixture: {first: 1000, second: 1}, block: 10", common)
    with pytest.raises(ConfigError, match=r"tasks\.a: 'blocks' has no target for next_sentence"):
        opened(
            "tasks: {a: {examples: blocks, weight: 1, objectives: [masked_lm, next_sentence]},"
            " b: {examples: first, weight: 1}}",
            common,
        )
    without = ["model.next_sentence=false", "objectives=[{kind: masked_lm}]"]
    mixed = f"phases=[{{mixture: {{first: 1, blocks: 1}}, {common}}}]"
    with pytest.raises(InputError, match="do not go into one batch"):
        open_data(decode_run(load(run.name, [*without, mixed])))


def test_rows_of_which_more_is_told_do_not_go_with_others(run: Run) -> None:
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    sets = {name: _open_set(run, name, vocabulary) for name in ("first", "second")}
    assert _common_shape(sets, "here").length == 32
    own = sets["second"]
    modes = replace(own.source, corruption=UnilmConfig(kind="unilm", mode="bidirectional"))
    with pytest.raises(InputError, match=r"here: .* do not go into one batch.*channels/seen_by"):
        _common_shape({**sets, "second": replace(own, source=modes)}, "here")


def test_the_order_of_the_keys_makes_no_difference(run: Run) -> None:
    turned = "phases.0.mixture={second: 1, first: 1}"
    other = open_data(decode_run(load(run.name, [turned])))
    ours = open_data(run)
    assert other.digests == ours.digests
    a, b = (data.phases[0].open().arrays(range(24)) for data in (ours, other))
    assert torch.equal(torch.from_numpy(a.ids), torch.from_numpy(b.ids))
