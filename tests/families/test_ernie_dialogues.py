"""Dialogues beside text: steps alternate, roles have rows of their own, and exports keep both."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import family_runs
import pytest
import test_family_export as family_export
import test_family_parity as family_parity
import test_family_ranks as family_ranks
import test_family_training as family_training
import torch
import torch.nn.functional as F
import transformers
from family_cases import DIALOGUES
from references import unpack
from safetensors.torch import load_file
from small_run import Job, records, run_job, weights, write_corpus

from configs.schema import ConfigError, load
from pipeline.commands import evaluate_run, export_run
from pipeline.data import Deal, MicroBatch
from pipeline.data import load as load_batches
from pipeline.fitting import fit
from pipeline.huggingface.export import export_model
from pipeline.huggingface.importing import import_model
from pipeline.models import build_model
from pipeline.models.ernie import ErnieConfig
from pipeline.nn.scores import logits
from pipeline.objectives import build_objectives
from pipeline.objectives.task import PretrainingTask
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run, decode_run
from pipeline.training.start import start_training
from preprocessing.commands import run_preparation
from preprocessing.layouts.pairs import NEXT, RANDOM
from preprocessing.vocabulary import Vocabulary

STEPS, NAME = 8, "ernie_dialogues"
RECIPE = """
seed: 5
corpus:
  directory: {root}/data
  sources:
    forum: {{inputs: [{root}/forum.txt]}}
    prose: {{inputs: [{root}/prose.txt]}}
  validation: {{heldout: {{share: 0.1}}}}
  shard_bytes: 20000
tokenizer: {{kind: wordpiece, vocab_size: 300}}
examples:
  text:
    {{length: 48, layout: {{kind: pairs}}, corruption: {{kind: units, level: words}},
      sources: [prose]}}
  talk:
    {{length: 128, layout: {{kind: dialogues, speakers: ["Q:", "A:"]}}, pack: true,
      corruption: {{kind: units, level: tokens}}, sources: [forum]}}
model: {{family: ernie, vocab_size: 300, hidden_size: 32, num_layers: 2, num_heads: 2,
         intermediate_size: 64, max_positions: 129, num_segments: 4, dialogue_response: true,
         dropout: 0.0, attention_dropout: 0.0}}
objectives: [{{kind: masked_lm}}, {{kind: next_sentence}}, {{kind: dialogue_response}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant}}
phases:
  - tasks:
      text: {{examples: text, weight: 1}}
      talk: {{examples: talk, weight: 1}}
    steps: 8
    block: 2
    batch_rows: 16
    learning_rate: 6e-3
train: {{engine: local, micro_batch_rows: 8, log_every: 1, evaluate_every: 8, save_every: 1,
         milestone_every: 1, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 16, micro_batch_rows: 8}}
output: {{directory: {root}/run}}
"""


def write_talks(path: Path, documents: int, seed: int = 0) -> None:
    """Made-up dialogues: a sentence of the made-up prose a turn."""
    write_corpus(path, documents, seed)
    talks = []
    for number, text in enumerate(path.read_text().split("\n\n")):
        speakers = "QAQQAAQAQAAQQ"[number % 3 :]
        talks.append("\n".join(map("{}: {}".format, speakers, text.split(". "))))
    path.write_text("\n\n".join(talks))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dialogues")
    write_corpus(root / "prose.txt")
    write_talks(root / "forum.txt", documents=150, seed=1)
    path = root / "recipe.yaml"
    path.write_text(RECIPE.format(root=root))
    for _ in run_preparation(decode_run(load(path)).preparation):
        pass
    return path


@pytest.fixture(scope="module")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    run_job(recipe, Job(output))
    return output


def batches_of(run: Run, step: int) -> Sequence[MicroBatch]:
    source = open_data(run).phases[0]
    deal = Deal(Timeline(run.phases, run.schedule).position(step), 1, 16, 8, rank=0, world_size=1)
    return next(iter(load_batches(source, deal, workers=0, pin=False)))


def test_steps_of_both_tasks_have_the_segments_and_targets_of_their_own(recipe: Path) -> None:
    run = decode_run(load(recipe))
    source = open_data(run).phases[0]
    seen = set()
    for step in range(4):
        talks = source.objectives(step) == {"masked_lm", "dialogue_response"}
        assert talks or source.objectives(step) == {"masked_lm", "next_sentence"}
        seen.add(talks)
        for micro_batch in batches_of(run, step):
            batch = micro_batch.batch
            inside = batch.sequence_ids > 0
            segments = set(batch.segment_ids[inside].tolist())
            assert segments == ({2, 3} if talks else {0, 1})
            for name, asked in (("next_sentence", not talks), ("dialogue_response", talks)):
                assert bool((batch.targets[name].labels >= 0).any()) == asked
            if talks:
                firsts = batch.targets["dialogue_response"].indices
                real = batch.targets["dialogue_response"].labels >= 0
                assert (batch.positions.view(-1)[firsts[real]] == 0).all()
                assert (batch.segment_ids.view(-1)[firsts[real]] == 2).all()
                assert int(batch.sequence_ids.max()) > 1, "packed"
    assert seen == {False, True}


def test_a_step_moves_what_its_task_trains_and_nothing_else(recipe: Path, trained: Path) -> None:
    source = open_data(decode_run(load(recipe))).phases[0]
    states = [
        load_file(trained / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        for step in range(1, STEPS + 1)
    ]
    for step, (before, after) in enumerate(itertools.pairwise(states), 1):
        talks = "dialogue_response" in source.objectives(step)
        for head, moves in (("next_sentence", not talks), ("dialogue_response", talks)):
            for name in before:
                if name.startswith(f"heads.{head}."):
                    assert torch.equal(before[name], after[name]) != moves, (step, name)


def test_losses_of_a_task_are_logged_in_its_steps(recipe: Path, trained: Path) -> None:
    source = open_data(decode_run(load(recipe))).phases[0]
    logged = records(trained, "train")
    assert len(logged) == STEPS
    for record in logged:
        told = {name.removesuffix("_loss") for name in record if name.endswith("_loss")}
        assert told == source.objectives(record["step"] - 1)


def test_models_without_roles_are_told_what_dialogues_need(recipe: Path) -> None:
    without = (
        "model.num_segments=2",
        "model.dialogue_response=false",
        "objectives=[{kind: masked_lm}, {kind: next_sentence}]",
    )
    run = decode_run(load(recipe, without))
    task = PretrainingTask(build_model(run.model), build_objectives(run.objectives))
    with pytest.raises(ConfigError, match=r"layout 'dialogues' needs model\.num_segments=4"):
        fit(run, open_data(run), task)
    with pytest.raises(ConfigError, match="dialogue_response needs num_segments: 4"):
        decode_run(load(recipe, ["model.num_segments=2"]))


def test_exports_have_all_rows_and_come_back_whole(
    recipe: Path, trained: Path, tmp_path: Path
) -> None:
    run = decode_run(load(recipe))
    model = build_model(run.model)
    loaded = model.load_state_dict(weights(trained), strict=False)
    assert loaded.missing_keys == ["heads.masked_lm.decoder.weight"], "which is the word table"
    folder = tmp_path / "out"
    report = export_model(model, run.model, run.preparation.tokenizer_directory, folder, "# Card\n")
    assert report.architecture == "ErnieForPreTraining"
    assert report.max_difference < 1e-5
    theirs, info = transformers.ErnieForPreTraining.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values())
    assert theirs.ernie.embeddings.token_type_embeddings.weight.shape == (4, 32)
    config, state = import_model(folder)
    assert config == run.model
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_packed_dialogues_are_judged_as_plain_code_judges_them_alone(
    recipe: Path, tmp_path: Path
) -> None:
    run = decode_run(load(recipe))
    config = replace(run.model, initializer_std=0.3)
    torch.manual_seed(0)
    model = build_model(config).eval()
    folder = tmp_path / "out"
    export_model(model, config, run.preparation.tokenizer_directory, folder, "# Card\n")
    body = transformers.ErnieModel.from_pretrained(folder, add_pooling_layer=False).eval()
    state = model.state_dict()
    names = [f"heads.dialogue_response.{part}" for part in ("pooler", "classifier")]
    (first, second) = ((state[f"{name}.weight"], state[f"{name}.bias"]) for name in names)
    source = open_data(run).phases[0]
    step = next(n for n in range(4) if "dialogue_response" in source.objectives(n))
    batch = batches_of(run, step)[0].batch
    asked = batch.targets["dialogue_response"]
    real = asked.labels >= 0
    alone = unpack(replace(batch, targets={"dialogue_response": asked}))

    def judged(segment_ids: torch.Tensor) -> torch.Tensor:
        states = body(
            input_ids=alone.ids,
            token_type_ids=segment_ids,
            attention_mask=(alone.sequence_ids > 0).long(),
        ).last_hidden_state
        return F.linear(torch.tanh(F.linear(states[:, 0], *first)), *second)

    with torch.no_grad():
        outputs = model(replace(batch, targets={"dialogue_response": asked}))
        ours = logits(outputs["dialogue_response"])[real]
        expected = judged(alone.segment_ids)
        without_roles = judged(torch.zeros_like(alone.segment_ids))
    assert len(expected) == int(real.sum()) > 8
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)  # measured: 1.4e-6
    assert (ours - without_roles).abs().max() > 0.1


def test_their_loss_takes_our_labels_of_next_sentences(recipe: Path, tmp_path: Path) -> None:
    """Class 0 is "next" on both sides: an export turns nothing round, and must not."""
    assert (NEXT, RANDOM) == (0, 1), "as ErnieForPreTraining documents next_sentence_label"
    run = decode_run(load(recipe))
    config = ErnieConfig(
        family="ernie",
        vocab_size=300,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
        initializer_std=0.3,
    )
    torch.manual_seed(0)
    model = build_model(config).eval()
    folder = tmp_path / "out"
    export_model(model, config, run.preparation.tokenizer_directory, folder, "# Card\n")
    theirs = transformers.ErnieForPreTraining.from_pretrained(folder).eval()
    step = next(n for n in range(4) if "next_sentence" in open_data(run).phases[0].objectives(n))
    batch = batches_of(run, step)[0].batch
    targets = batch.targets["next_sentence"]
    labels = targets.labels
    assert set(labels.tolist()) == {NEXT, RANDOM}
    ours = build_objectives(run.objectives[:2])["next_sentence"]
    chosen = {name: batch.targets[name] for name in ("masked_lm", "next_sentence")}
    pads = Vocabulary.load(run.preparation.tokenizer_directory).pad_id
    assert bool((batch.ids[batch.sequence_ids == 0] == pads).all())
    with torch.no_grad():
        outputs = model(replace(batch, targets=chosen))
        loss = ours(outputs, batch).total / len(labels)
        given = theirs(
            input_ids=batch.ids,
            token_type_ids=batch.segment_ids,
            attention_mask=(batch.sequence_ids > 0).long(),
            labels=torch.full_like(batch.ids, -100).index_put(
                (torch.tensor([0]), torch.tensor([1])), batch.ids[0, 1]
            ),
            next_sentence_label=labels,
        )
        one = F.cross_entropy(given.prediction_logits[0, 1:2], batch.ids[0, 1:2])
        turned = F.cross_entropy(logits(outputs["next_sentence"]).flip(-1), labels)
    assert abs(float(given.loss - one - loss)) < 1e-5  # measured: 1.2e-7
    assert abs(float(turned - loss)) > 0.1, "with the two rows changed it would be another loss"
    assert math.isfinite(float(loss))


# -- what is asked of all families ---------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The recipe of the small run, on dialogues; the case counts as a family meanwhile."""
    root = tmp_path_factory.mktemp("family")
    write_talks(root / "talks.txt", documents=200)
    case = replace(DIALOGUES, corpus={"inputs": [str(root / "talks.txt")]})
    path = family_runs.prepare_family(root / NAME, NAME, case)
    with mock.patch.dict(family_training.FAMILIES, {NAME: case}):
        yield lambda name: path


@pytest.mark.parametrize("rows", family_training.ROWS_OF)
def test_twenty_steps_are_those_of_a_plain_loop(
    recipe_of: Callable[[str], Path], rows: str
) -> None:
    family_training.test_twenty_steps_are_those_of_a_plain_loop_over_the_reference(
        recipe_of, NAME, rows
    )


def test_the_packed_loss_is_the_unpacked_one(recipe_of: Callable[[str], Path]) -> None:
    family_training.test_the_packed_loss_is_the_unpacked_one(recipe_of, NAME)


@pytest.mark.parametrize(
    "stages", [(2,), pytest.param(family_ranks.STAGES, marks=pytest.mark.slow)]
)
def test_two_ranks_agree_and_resume(
    recipe_of: Callable[[str], Path], tmp_path: Path, stages: tuple[int, ...]
) -> None:
    runs = family_ranks.train(tmp_path, recipe_of, [(NAME, stage) for stage in stages])
    for stage in stages:
        family_ranks.check_agreement(runs, NAME, stage)
        family_ranks.check_resumption(runs, NAME, stage)


def test_a_trained_run_exports_and_comes_back(recipe_of: Callable[[str], Path]) -> None:
    path = recipe_of(NAME)
    run = decode_run(
        load(path, [*family_export.SHORT, f"output.directory={path.parent / 'exported'}"])
    )
    with mock.patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        start_training(run)
    evaluate_run(run, None)
    exported = family_export.Exported(run, Path(export_run(run, None)["directory"]))
    family_export.test_the_folder_loads_whole_and_imports_identical_tensors(exported)
    family_export.test_the_tokenizer_gives_the_same_ids(exported)
    family_export.test_the_card_says_data_recipe_and_figures(exported)


@pytest.mark.parametrize(("number", "shape"), enumerate(["tiny", "odd", "based"]))
def test_packed_logits_are_those_of_plain_code(number: int, shape: str) -> None:
    family_parity.test_packed_logits_are_those_of_transformers_unpacked(DIALOGUES, number, shape)
