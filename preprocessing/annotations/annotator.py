"""From the texts of a column to what is known of its tokens.

An annotator names places in the bytes; the encoder says which tokens lie there; what comes out
counts in tokens. A span whose borders are no borders of tokens is dropped, and counted.

    text: "in New York"      phrases in bytes: [(3, 11)]      marks: [3, 11]
    ids:  in new york        marks lie at tokens [1, 3]       phrases in tokens: [(1, 2)]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.annotations.capitals import CAPITALS, capitalised_words
from preprocessing.annotations.lexicon import Lexicon
from preprocessing.annotations.segmentation import Jieba, jieba_version
from preprocessing.annotations.settings import AnnotationsConfig, LexiconConfig
from preprocessing.storage import InputError, file_digest
from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded

SPANS = pa.large_list(
    pa.field(
        "item",
        pa.struct(
            [
                pa.field("start", pa.int32(), nullable=False),
                pa.field("length", pa.int32(), nullable=False),
            ]
        ),
        nullable=False,
    )
)
"""A column of spans: tokens, counted from the first of the document, ascending, apart."""


def annotation_fields(config: AnnotationsConfig) -> list[pa.Field]:
    """The columns that a configuration asks for: capitals, then spans by layer."""
    columns = {"capitals": CAPITALS} if config.capitals else {}
    columns |= dict.fromkeys(_lexicons(config), SPANS)
    return [pa.field(name, kind, nullable=False) for name, kind in columns.items()]


@dataclass(frozen=True)
class TokenSpans:
    """One layer's spans in the tokens of a column.

    Attributes:
        starts: int32 ``[spans]``, counted from the first token of their text.
        lengths: int32 ``[spans]``, 1 or more.
        counts: int64 ``[texts]``, how many each text has.
        dropped: how many more would not have begun and ended where tokens do.
    """

    starts: NDArray[np.int32]
    lengths: NDArray[np.int32]
    counts: NDArray[np.int64]
    dropped: int

    def column(self, kept: NDArray[np.bool_]) -> pa.LargeListArray:
        """The spans of those texts that are kept, as :data:`SPANS`; the others have none."""
        offsets = np.concatenate([[0], np.cumsum(self.counts[kept])])
        assert offsets[-1] == len(self.starts)
        spans = pa.StructArray.from_arrays(
            [pa.array(self.starts), pa.array(self.lengths)], fields=list(SPANS.value_type)
        )
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), spans, type=SPANS)


@dataclass(frozen=True)
class Annotations:
    """What was found in a column, as places in its bytes.

    Attributes:
        spans: by layer int64 ``[spans, 2]``, begin and end; ascending, without overlap.
        word_places: int64 ``[characters]``, ascending: where characters begin that a segmenter
            has put into words.
        word_begins: bool ``[characters]``; whether a word begins there.
        capital_words: int64 ``[words, 2]``, begin and end of capitalised words, ascending; None
            where nobody asked for them.
    """

    spans: Mapping[str, NDArray[np.int64]]
    word_places: NDArray[np.int64]
    word_begins: NDArray[np.bool_]
    capital_words: NDArray[np.int64] | None = None

    @property
    def marks(self) -> NDArray[np.int64]:
        """All places that the encoder has to be asked for, ascending, each once."""
        places = [spans.ravel() for spans in self.spans.values()]
        if self.capital_words is not None:
            places.append(self.capital_words.ravel())
        return merged(self.word_places, *places)

    def token_spans(self, marks: NDArray[np.int64], encoded: Encoded) -> dict[str, TokenSpans]:
        """The spans in tokens, by layer.

        Args:
            marks: what the encoder was asked for: ours and any others, ascending.
            encoded: what it answered.
        """
        return {
            layer: _token_spans(np.searchsorted(marks, spans), encoded)
            for layer, spans in self.spans.items()
        }

    def word_starts(self, marks: NDArray[np.int64], encoded: Encoded) -> NDArray[np.bool_]:
        """``encoded.word_starts``, as the segmenter says of the tokens that it knows."""
        at = np.searchsorted(marks, self.word_places)
        # A character without a token has its mark at the token of the next, which says better.
        last = np.append(np.diff(encoded.marks[at]) > 0, True)[: len(at)]
        known = encoded.exact[at] & last & (encoded.marks[at] < len(encoded.ids))
        starts = encoded.word_starts.copy()
        starts[encoded.marks[at[known]]] = self.word_begins[known]
        return starts

    def capitals(self, marks: NDArray[np.int64], encoded: Encoded) -> NDArray[np.bool_] | None:
        """Which tokens hold a part of a capitalised word ``[tokens]``; None where unasked for."""
        if self.capital_words is None:
            return None
        begins, ends = np.searchsorted(marks, self.capital_words).T
        # A token that begins before the word and ends in it holds its first letter.
        first = encoded.marks[begins] - ~encoded.exact[begins]
        size = len(encoded.ids) + 1
        changes = np.bincount(first, minlength=size)
        changes -= np.bincount(encoded.marks[ends], minlength=size)
        return np.asarray(np.cumsum(changes)[:-1] > 0)


def merged(*places: NDArray[np.int64]) -> NDArray[np.int64]:
    """All of some ascending arrays, ascending, each once; much faster than a hash table."""
    both = np.sort(np.concatenate(places), kind="stable")
    new = np.ones(len(both), np.bool_)
    new[1:] = both[1:] > both[:-1]
    return np.asarray(both[new])


def _token_spans(at: NDArray[np.int64], encoded: Encoded) -> TokenSpans:
    """Spans ``[spans, 2]``, given as indices into the marks."""
    tokens = encoded.marks[at]
    whole = encoded.exact[at].all(axis=1) & (tokens[:, 0] < tokens[:, 1])
    first, after = tokens[whole, 0], tokens[whole, 1]
    text = np.searchsorted(encoded.offsets, first, side="right") - 1
    return TokenSpans(
        (first - encoded.offsets[text]).astype(np.int32),
        (after - first).astype(np.int32),
        np.bincount(text, minlength=len(encoded.offsets) - 1),
        int(len(whole) - whole.sum()),
    )


class Annotator:
    """Everything a configuration asks for, loaded once a process.

    Raises:
        InputError: a lexicon or a dictionary cannot be read, or a library is not installed.
    """

    def __init__(self, config: AnnotationsConfig) -> None:
        self._lexicons = {layer: Lexicon(files) for layer, files in _lexicons(config).items()}
        self._jieba = Jieba(config.segmenter) if config.segmenter else None
        self._capitals = config.capitals

    def annotate(self, texts: Texts) -> Annotations:
        """Find everything in a column."""
        spans = {layer: lexicon.spans(texts) for layer, lexicon in self._lexicons.items()}
        words = np.zeros(0, np.int64), np.zeros(0, np.bool_)
        if self._jieba:
            words = self._jieba.words(texts)
        return Annotations(spans, *words, capitalised_words(texts) if self._capitals else None)


def _lexicons(config: AnnotationsConfig) -> dict[str, tuple[LexiconConfig, ...]]:
    all_layers = {"phrases": config.phrases, "entities": config.entities}
    return {layer: files for layer, files in all_layers.items() if files}


def describe(config: AnnotationsConfig) -> dict[str, Any]:
    """What decides the annotations, but for the lexicons' contents, as plain values."""
    described: dict[str, Any] = {
        layer: [
            {"case_sensitive": file.case_sensitive, "min_characters": file.min_characters}
            for file in files
        ]
        for layer, files in _lexicons(config).items()
    }
    if config.segmenter:
        described["segmenter"] = {
            "kind": config.segmenter.kind,
            "hmm": config.segmenter.hmm,
            "version": jieba_version(),
        }
    if config.capitals:
        described["capitals"] = True
    return described


def digests(config: AnnotationsConfig) -> dict[str, str]:
    """Digests of the lexicons and of a segmenter's dictionary, by the name of an input.

    Raises:
        InputError: one cannot be read.
    """
    paths = {
        f"{layer}[{number}]": file.path
        for layer, files in _lexicons(config).items()
        for number, file in enumerate(files)
    }
    if config.segmenter and config.segmenter.dictionary:
        paths["segmenter"] = config.segmenter.dictionary
    try:
        return {name: file_digest(path) for name, path in paths.items()}
    except OSError as error:
        raise InputError(f"corpus.annotations: cannot read a lexicon: {error}") from error
