"""Fill in masks: what the model puts where a word is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.batch import Batch, Targets
from pipeline.nn.model import PretrainingModel
from pipeline.nn.scores import logits
from pipeline.settings import Run
from preprocessing.draws import integers, purpose_key
from preprocessing.storage import InputError, Manifest
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

MASK = "[MASK]"
_FEWEST_TOKENS = 8
_ATTEMPTS_A_SAMPLE = 64
_DOCUMENT, _SENTENCE, _WORD = 0, 1, 2  # what the draws of an attempt are taken for


@dataclass(frozen=True)
class Prediction:
    """A piece of the vocabulary and its probability at a masked place."""

    piece: str
    probability: float


@dataclass(frozen=True)
class MaskedSentence:
    """A sentence with one place to fill.

    Attributes:
        ids: with ``[CLS]``, ``[SEP]`` and the mask.
        place: of the mask in ``ids``.
        text: as it is shown, with ``[MASK]``.
        truth: the piece that stood there.
    """

    ids: tuple[int, ...]
    place: int
    text: str
    truth: str


@dataclass(frozen=True)
class Sample:
    """A held-out sentence with one word masked, and what the model puts there, likeliest first."""

    text: str
    truth: str
    predictions: tuple[Prediction, ...]


def fill_masks(
    model: PretrainingModel,
    vocabulary: Vocabulary,
    sentences: Sequence[str],
    *,
    max_length: int,
    top: int = 5,
) -> list[list[tuple[Prediction, ...]]]:
    """The likeliest pieces at every ``[MASK]`` of every sentence.

    Unlike in a corpus, where text is always text, ``[MASK]`` is the mask here; what stands left
    and right of it is tokenized apart.

    Args:
        model: predicts ``masked_lm``; put into evaluation mode.
        max_length: tokens that the model can take, specials included.
        top: predictions a mask.

    Returns:
        For each sentence, for each of its masks, ``top`` predictions, likeliest first.

    Raises:
        InputError: a sentence has no ``[MASK]``, or is too long.
    """
    filled = []
    for sentence in sentences:
        pieces = vocabulary.encode(sentence.split(MASK))
        if len(pieces) == 1:
            raise InputError(f"{sentence!r}: has no {MASK} to fill")
        ids, places = [vocabulary.start_id, *pieces[0]], []
        for piece in pieces[1:]:
            places.append(len(ids))
            ids += [vocabulary.mask_id, *piece]
        ids.append(vocabulary.separator_id)
        if len(ids) > max_length:
            raise InputError(f"{sentence!r}: has {len(ids)} tokens; the model takes {max_length}")
        filled.append(_predict(model, vocabulary, ids, places, top))
    return filled


def sample_sentences(
    run: Run, model: PretrainingModel, count: int, *, top: int = 5
) -> list[Sample]:
    """What a model puts into :func:`masked_sentences`."""
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    return [
        Sample(
            sentence.text,
            sentence.truth,
            _predict(model, vocabulary, sentence.ids, [sentence.place], top)[0],
        )
        for sentence in masked_sentences(run, vocabulary, count)
    ]


def masked_sentences(run: Run, vocabulary: Vocabulary, count: int) -> list[MaskedSentence]:
    """Held-out sentences with one word masked, by keyed draws: always the same ones.

    They come from the first validation set. Only whole words of letters are masked, and only
    sentences taken that fit the model; a small set may hold fewer than ``count`` of them.

    Raises:
        InputError: nothing is held out, or the tokens are missing.
    """
    directory = run.preparation.tokens_directory
    held_out = [split for split in Manifest.read(directory).splits if split != "train"]
    if not held_out:
        raise InputError(f"{directory}: nothing is held out here; name a set in corpus.validation")
    store = TokenStore(directory, held_out[0])
    num_attempts = count * _ATTEMPTS_A_SAMPLE
    key = np.asarray(purpose_key(run.seed, "sample sentences"))
    documents = integers(key, np.arange(num_attempts), _DOCUMENT, store.num_documents)
    found: dict[tuple[int, int], MaskedSentence] = {}
    for attempt, document in enumerate(documents.tolist()):
        lengths = store.sentence_lengths(document)
        if len(found) == count:
            break
        if not len(lengths):
            continue
        number = int(integers(key, attempt, _SENTENCE, len(lengths)))
        start, size = int(lengths[:number].sum()), int(lengths[number])
        if (document, number) in found or not (
            _FEWEST_TOKENS <= size <= run.model.max_positions - 2
        ):
            continue
        ids = store.ids(document)[start : start + size].astype(np.int64)
        words = _whole_words(vocabulary, ids)
        if words:
            word = words[int(integers(key, attempt, _WORD, len(words)))]
            found[document, number] = _masked(vocabulary, ids, word)
    return list(found.values())


def _whole_words(vocabulary: Vocabulary, ids: NDArray[np.int64]) -> list[int]:
    """Places of words that are one piece, of letters."""
    continues = np.append(vocabulary.continues_word[ids], False)
    pieces = vocabulary.tokens(ids)
    return [
        place
        for place, piece in enumerate(pieces)
        if piece.isalpha() and not continues[place] and not continues[place + 1]
    ]


def _masked(vocabulary: Vocabulary, ids: NDArray[np.int64], place: int) -> MaskedSentence:
    shown = ids.copy()
    shown[place] = vocabulary.mask_id
    return MaskedSentence(
        ids=(vocabulary.start_id, *shown.tolist(), vocabulary.separator_id),
        place=place + 1,
        text=vocabulary.decode(shown),
        truth=vocabulary.tokens(ids[place : place + 1])[0],
    )


@torch.no_grad()
def _predict(
    model: PretrainingModel,
    vocabulary: Vocabulary,
    ids: Sequence[int],
    places: Sequence[int],
    top: int,
) -> list[tuple[Prediction, ...]]:
    model.eval()
    device = next(model.parameters()).device
    row = torch.tensor([list(ids)])
    where = torch.tensor(list(places))
    batch = Batch(
        ids=row,
        sequence_ids=torch.ones_like(row),
        positions=torch.arange(row.shape[1])[None],
        segment_ids=torch.zeros_like(row),
        targets={"masked_lm": Targets(where, torch.zeros_like(where))},
    )
    scores = logits(model(batch.to(device))["masked_lm"])[:, : vocabulary.size]
    best = scores.float().softmax(-1).topk(min(top, vocabulary.size))
    return [
        tuple(map(Prediction, vocabulary.tokens(indices), probabilities))
        for indices, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
