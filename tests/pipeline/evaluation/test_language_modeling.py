from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from configs.schema import ConfigError
from pipeline.commands import evaluate_run
from pipeline.data import RowSource, to_batch
from pipeline.evaluation.baselines import (
    count_tokens,
    shuffle_context,
    unigram_log_probabilities,
)
from pipeline.evaluation.checkpoints import load_model, newest
from pipeline.evaluation.language_modeling import (
    EVALUATION_FILE,
    evaluate,
    read_evaluation,
    score_set,
)
from pipeline.nn.scores import logits
from pipeline.training.start import build_task
from pipeline.training.tracking import read_metrics
from preprocessing.rows import RowSet
from preprocessing.storage import InputError
from preprocessing.vocabulary import Vocabulary


def held_out(run, examples="pairs"):
    settings = run.preparation.examples[examples]
    directory = run.preparation.examples_directory(examples)
    return RowSource(directory, "heldout", settings.corruption, run.seed, None)


def unigram(run):
    counts = count_tokens(run.preparation.examples_directory("pairs"))
    return unigram_log_probabilities(counts)


def constant_task(run, bias=None):
    """A model without weights: it predicts ``bias`` [vocabulary] whatever it sees."""
    task = build_task(run).eval()
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.zero_()
        if bias is not None:
            decoder = task.model.heads["masked_lm"].decoder.bias
            decoder.fill_(-100.0)
            decoder[: len(bias)] = torch.from_numpy(bias)
    return task


def sensitive_task(run):
    """A model with weights so large that every visible token moves its predictions."""
    task = build_task(run).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    return task


@pytest.fixture
def copied(trained, tmp_path):
    """The trained run with a directory of its own."""
    directory = shutil.copytree(trained.output.directory, tmp_path / "run")
    return dataclasses.replace(
        trained, output=dataclasses.replace(trained.output, directory=directory)
    )


def test_a_model_that_knows_nothing_scores_the_logarithm_of_its_classes(recipe):
    run = recipe()
    result = score_set(run, constant_task(run), "heldout", held_out(run), unigram(run))
    # Sums of some hundred targets in fp32.
    assert result.loss == pytest.approx(math.log(160), rel=1e-6)
    assert result.others["next_sentence"].loss == pytest.approx(math.log(2), rel=1e-6)
    assert result.perplexity == pytest.approx(160, rel=1e-5)
    size = Vocabulary.load(run.preparation.tokenizer_directory).size
    assert result.uniform == math.log(size)


def test_a_model_of_the_frequencies_alone_equals_both_of_its_baselines(recipe):
    run = recipe()
    probabilities = unigram(run)
    task = constant_task(run, probabilities)
    result = score_set(run, task, "heldout", held_out(run), probabilities)
    assert result.below_unigram == pytest.approx(0, abs=1e-5)  # measured: 1e-7
    assert result.below_shuffled == 0
    assert result.unigram < result.uniform


def test_unigram_is_the_mean_over_the_very_targets(recipe):
    run = recipe()
    probabilities, source = unigram(run), held_out(run)
    rows = RowSet(source.directory, "heldout", seed=run.seed)
    arrays = rows.arrays(source.corruption, np.arange(50), epoch=0)
    targets = [label for label in arrays.targets["masked_lm"].labels.tolist() if label >= 0]
    result = score_set(run, constant_task(run), "heldout", source, probabilities)
    assert result.targets == len(targets)
    by_hand = -sum(probabilities[target] for target in targets) / len(targets)
    assert result.unigram == pytest.approx(by_hand, rel=1e-12)


def test_shuffled_context_is_the_loss_on_the_same_targets_in_shuffled_rows(recipe):
    run = recipe()
    task, source = sensitive_task(run), held_out(run)
    rows = RowSet(source.directory, "heldout", seed=run.seed)
    arrays = rows.arrays(source.corruption, np.arange(50), epoch=0)
    inside = arrays.sequence_ids > 0
    stored = rows.read(0, np.arange(50)).sequences
    seen = dataclasses.replace(stored, tokens=arrays.ids[inside])
    asked = arrays.targets["masked_lm"]
    labels = asked.labels
    visible = np.zeros(arrays.ids.size, dtype=bool)
    visible[asked.indices[labels >= 0]] = True
    places = np.flatnonzero(visible.reshape(inside.shape)[inside])
    ids = arrays.ids.copy()
    ids[inside] = shuffle_context(seen, places, rows.special, seed=run.seed)
    batch = to_batch(dataclasses.replace(arrays, ids=ids))
    with torch.no_grad():
        scores = logits(task.model(batch)["masked_lm"]).double()
    by_hand = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)).item()
    result = score_set(run, task, "heldout", source, unigram(run))
    assert result.shuffled == pytest.approx(by_hand, rel=1e-6)  # summed in fp32
    assert abs(result.below_shuffled) > 1e-3  # far off the plain loss, as such a model is


def test_packed_rows_score_as_unpacked_ones(recipe):
    run = recipe(["evaluation.max_rows=null"])
    task, probabilities = sensitive_task(run), unigram(run)
    alone = score_set(run, task, "heldout", held_out(run), probabilities)
    packed = score_set(run, task, "heldout", held_out(run, "packed"), probabilities)
    assert packed.rows < alone.rows
    assert packed.targets == alone.targets
    # The same sums in another order, in fp32.
    for name in ("loss", "unigram", "shuffled"):
        assert getattr(packed, name) == pytest.approx(getattr(alone, name), rel=1e-5), name
    pairs, own = packed.others["next_sentence"], alone.others["next_sentence"]
    assert pairs.loss == pytest.approx(own.loss, rel=1e-5)
    assert (pairs.targets, pairs.accuracy) == (own.targets, own.accuracy)
    assert packed.accuracy == alone.accuracy


def test_an_evaluation_finds_what_the_training_last_found(copied):
    (result,) = evaluate(copied)
    last = [r for r in read_metrics(copied.output.directory) if r["kind"] == "validation"][-1]
    assert (last["step"], result.name, result.rows) == (8, "heldout", 50)
    assert result.loss == pytest.approx(last["masked_lm_loss"], rel=1e-5)
    assert result.accuracy == last["masked_lm_accuracy"]
    pairs = result.others["next_sentence"]
    assert pairs.loss == pytest.approx(last["next_sentence_loss"], rel=1e-5)
    assert pairs.accuracy == last["next_sentence_accuracy"]
    assert result.perplexity == math.exp(result.loss)
    assert result.below_unigram == result.unigram - result.loss
    assert result.below_shuffled == result.shuffled - result.loss


def test_the_file_gives_back_the_evaluation(copied):
    directory = copied.output.directory
    (directory / EVALUATION_FILE).unlink(missing_ok=True)  # of tests that share the training
    assert read_evaluation(directory) is None
    results = evaluate(copied)
    evaluation = read_evaluation(directory)
    assert list(evaluation.sets) == results
    assert (evaluation.step, evaluation.checkpoint) == (8, "step-00000008")
    assert evaluation.samples
    first = (directory / EVALUATION_FILE).read_bytes()
    evaluate(copied)
    assert (directory / EVALUATION_FILE).read_bytes() == first


def test_an_older_checkpoint_can_be_chosen(copied):
    older = copied.output.directory / "checkpoints" / "step-00000004"
    (result,) = evaluate(copied, older)
    records = read_metrics(copied.output.directory)
    (then,) = [r for r in records if r["kind"] == "validation" and r["step"] == 4]
    assert result.loss == pytest.approx(then["masked_lm_loss"], rel=1e-5)
    assert read_evaluation(copied.output.directory).step == 4


def test_an_evaluation_of_another_version_is_made_anew(copied):
    written = evaluate_run(copied, None, only_if_stale=True)
    path = copied.output.directory / EVALUATION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    assert read_evaluation(copied.output.directory) is None
    assert evaluate_run(copied, None, only_if_stale=True) == written
    assert read_evaluation(copied.output.directory).version == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9}', '{"version": 2, "sets": 3}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / EVALUATION_FILE).write_text(text)
    with pytest.raises(InputError, match="evaluate again"):
        read_evaluation(tmp_path)


def test_a_run_without_checkpoint_is_refused(recipe, tmp_path):
    run = recipe([f"output.directory={tmp_path}"])
    with pytest.raises(InputError, match="there is no checkpoint here; train first"):
        evaluate(run)
    with pytest.raises(InputError, match="there is no such checkpoint"):
        load_model(run, tmp_path / "step-00000001")
    with pytest.raises(InputError, match="not a checkpoint"):
        load_model(run, tmp_path)


def test_a_checkpoint_of_another_model_is_refused(recipe):
    run = recipe(["model.num_layers=2", "model.intermediate_size=80"])
    with pytest.raises(ConfigError) as error:
        load_model(run)
    problems = "\n".join(error.value.problems)
    assert "64 x 32 in the checkpoint, 80 x 32 in the model" in problems
    assert "blocks.1.attention" in problems


def test_damaged_weights_are_refused(copied):
    path = newest(copied) / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="wrong checksum"):
        load_model(copied)


def test_a_checkpoint_of_another_tokenizer_is_refused(copied):
    path = newest(copied) / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "tokenizer": "0" * 32}))
    with pytest.raises(ConfigError, match="another tokenizer"):
        load_model(copied)


def test_a_set_without_rows_is_refused(recipe, monkeypatch):
    run = recipe()
    monkeypatch.setattr("pipeline.data.OpenRows.num_rows", 0)
    with pytest.raises(InputError, match="'heldout' has no rows"):
        score_set(run, constant_task(run), "heldout", held_out(run), unigram(run))
