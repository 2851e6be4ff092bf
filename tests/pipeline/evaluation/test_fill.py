from __future__ import annotations

import math

import pytest
import torch

from pipeline.evaluation.checkpoints import load_model
from pipeline.evaluation.fill import fill_masks, masked_sentences, sample_sentences
from pipeline.training.start import build_task
from preprocessing.storage import InputError
from preprocessing.vocabulary import Vocabulary


@pytest.fixture
def vocabulary(recipe):
    return Vocabulary.load(recipe().preparation.tokenizer_directory)


@pytest.fixture
def knows_one_word(recipe, vocabulary):
    """A model that gives ``garden`` the logit 3 and everything else 0."""
    model = build_task(recipe()).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        garden = vocabulary.tokenizer.token_to_id("garden")
        model.heads["masked_lm"].decoder.bias[garden] = 3.0
    return model


def test_every_mask_is_filled_with_the_likeliest_pieces(knows_one_word, vocabulary):
    sentences = ["anna sees [MASK] in the [MASK].", "the [MASK]"]
    filled = fill_masks(knows_one_word, vocabulary, sentences, max_length=48, top=3)
    assert [len(masks) for masks in filled] == [2, 1]
    for prediction in (masks[0] for masks in filled):
        assert prediction[0].piece == "garden"
        expected = math.exp(3) / (math.exp(3) + vocabulary.size - 1)
        assert prediction[0].probability == pytest.approx(expected, rel=1e-5)
        assert prediction[1].probability == pytest.approx(expected / math.exp(3), rel=1e-5)
        assert len(prediction) == 3


def test_the_mask_is_read_from_its_own_place(trained, vocabulary):
    model = load_model(trained).model
    sentence = "anna [MASK] bruno in the old [MASK]."
    (both,) = fill_masks(model, vocabulary, [sentence], max_length=48)
    assert both[0] != both[1]
    for guesses in both:
        probabilities = [guess.probability for guess in guesses]
        assert probabilities == sorted(probabilities, reverse=True)
        assert len(guesses) == 5


def test_a_sentence_without_mask_or_too_long_is_refused(knows_one_word, vocabulary):
    with pytest.raises(InputError, match=r"has no \[MASK\] to fill"):
        fill_masks(knows_one_word, vocabulary, ["anna sees bruno"], max_length=48)
    with pytest.raises(InputError, match="the model takes 8"):
        fill_masks(knows_one_word, vocabulary, ["[MASK] " + "old " * 6], max_length=8)


def test_masked_sentences_stand_in_the_held_out_documents(recipe, vocabulary):
    run = recipe()
    corpus = (run.preparation.corpus.directory.parent / "corpus.jsonl").read_text().lower()
    sentences = masked_sentences(run, vocabulary, 6)
    assert len(sentences) == len({sentence.text for sentence in sentences}) == 6
    for sentence in sentences:
        assert sentence.text.count("[MASK]") == 1
        assert sentence.ids[sentence.place] == vocabulary.mask_id
        assert sentence.truth.isalpha()
        assert sentence.text.replace("[MASK]", sentence.truth) in corpus


def test_samples_are_the_same_each_time(trained):
    model = load_model(trained).model
    samples = sample_sentences(trained, model, 4, top=2)
    assert samples == sample_sentences(trained, model, 4, top=2)
    assert [len(sample.predictions) for sample in samples] == [2, 2, 2, 2]
