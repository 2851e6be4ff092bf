"""Gopher's filters (Rae et al. 2021, arXiv:2112.11446, appendix A.1.1), over scanned texts.

Quality: too few or too many words, words too short or too long, too many symbols, lists instead of
prose, words without letters, no stop words. Repetition: duplicate lines, paragraphs and n-grams.

Where the paper leaves a choice: a line, paragraph or n-gram is a duplicate if it stood before in
the same document (the first one is none); what n-grams cover is counted in characters of words,
white space left out, each character once; lines and their shares leave out blank lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocessing.cleaning.ngrams import duplicate_ngrams, hash_spans, top_ngram
from preprocessing.cleaning.scanning import Scan, per_text
from preprocessing.cleaning.settings import GopherConfig, RepetitionConfig
from preprocessing.cleaning.verdicts import Verdicts
from preprocessing.texts import Texts

_Floats = NDArray[np.float64]
_Mask = NDArray[np.bool_]


def share(parts: NDArray[np.int64], whole: NDArray[np.int64]) -> _Floats:
    """``parts / whole``; 0 of nothing."""
    shares: _Floats = parts / np.maximum(whole, 1)
    return shares


def check_quality(
    config: GopherConfig,
    stop_words: NDArray[np.uint64],
    scan: Scan,
    mine: _Mask,
    verdicts: Verdicts,
) -> None:
    """Apply the quality filters, in the order of the paper, to the texts of a profile.

    Args:
        config: the thresholds.
        stop_words: their folded hashes.
        scan: of all texts.
        mine: bool ``[texts]``, those of the profile.
        verdicts: takes what fails.
    """

    def bound(
        reason: str, values: _Floats, least: float | None, most: float | None, what: str
    ) -> None:
        failing = mine.copy()
        failing &= (values < (-np.inf if least is None else least)) | (
            values > (np.inf if most is None else most)
        )
        limits = [
            f"{word} {limit:g}"
            for word, limit in (("at least", least), ("at most", most))
            if limit is not None
        ]
        verdicts.reject(
            reason, failing, lambda index: f"{what} {values[index]:.4g}; {' and '.join(limits)}"
        )

    words, lines = scan.num_words, scan.num_lines
    bound(
        "gopher_word_count",
        words.astype(np.float64),
        config.min_words,
        config.max_words,
        "number of words",
    )
    # Where most words are single characters of a script without spaces, length says nothing.
    spaced = words - per_text(scan.alone, scan.word_offsets)
    lengths = per_text(scan.word_lengths, scan.word_offsets) - (words - spaced)
    bound(
        "gopher_mean_word_length",
        np.where(2 * spaced >= words, share(lengths, spaced), np.nan),
        config.min_mean_word_length,
        config.max_mean_word_length,
        "mean characters a word",
    )
    for symbols, what in ((scan.hash_signs, "hash signs"), (scan.ellipses, "ellipses")):
        ratio = share(symbols, words)
        bound("gopher_symbol_ratio", ratio, None, config.max_symbol_ratio, f"{what} a word")
    bullets = share(per_text(scan.bullet, scan.line_offsets), lines)
    bound("gopher_bullet_lines", bullets, None, config.max_bullet_lines, "share of bullet lines")
    ellipses = share(per_text(scan.ellipsis, scan.line_offsets), lines)
    bound(
        "gopher_ellipsis_lines",
        ellipses,
        None,
        config.max_ellipsis_lines,
        "share of lines ending in an ellipsis",
    )
    letters = share(per_text(scan.alphabetic, scan.word_offsets), words)
    bound(
        "gopher_alphabetic_words",
        letters,
        config.min_alphabetic_words,
        None,
        "share of words with a letter",
    )
    if len(stop_words):
        different = np.zeros(len(words), np.float64)
        for stop_word in stop_words:
            different += per_text(scan.folded == stop_word, scan.word_offsets) > 0
        bound("gopher_stop_words", different, config.min_stop_words, None, "different stop words")


def check_repetition(
    config: RepetitionConfig, texts: Texts, scan: Scan, mine: _Mask, verdicts: Verdicts
) -> None:
    """Apply the repetition filters, in the order of the paper's table, to the texts of a profile.

    Args:
        config: the largest shares.
        texts: all texts.
        scan: of all texts.
        mine: bool ``[texts]``, those of the profile.
        verdicts: takes what fails.
    """

    def bound(reason: str, shares: _Floats, most: float, what: str) -> None:
        verdicts.reject(
            reason,
            mine & (shares > most),
            lambda index: f"share of {what} {shares[index]:.4g}; at most {most:g}",
        )

    lines = _Spans.of_lines(texts, scan)
    paragraphs = _Spans.of_paragraphs(texts, scan)
    active = mine & verdicts.kept
    for name, spans, most in (
        ("line", lines, config.max_duplicate_lines),
        ("paragraph", paragraphs, config.max_duplicate_paragraphs),
    ):
        if most is not None:
            bound(f"gopher_duplicate_{name}s", spans.duplicates(active), most, f"duplicate {name}s")
    for name, spans, most in (
        ("line", lines, config.max_duplicate_line_characters),
        ("paragraph", paragraphs, config.max_duplicate_paragraph_characters),
    ):
        if most is not None:
            bound(
                f"gopher_duplicate_{name}_characters",
                spans.duplicate_characters(active),
                most,
                f"characters in duplicate {name}s",
            )
    characters = per_text(scan.word_lengths, scan.word_offsets)
    for n, most in enumerate(config.max_top_ngrams, start=2):
        if most is None:
            continue
        covered = top_ngram(
            scan.words, scan.word_lengths, scan.word_offsets, mine & verdicts.kept, n
        )
        bound(
            f"gopher_top_{n}gram",
            share(covered, characters),
            most,
            f"characters in the most frequent {n}-gram",
        )
    limits = [
        (n, most) for n, most in enumerate(config.max_duplicate_ngrams, start=5) if most is not None
    ]
    worth = mine.copy()
    for n, most in limits:
        covered = duplicate_ngrams(
            scan.words, scan.word_lengths, scan.word_offsets, worth & verdicts.kept, n
        )
        shares = share(covered, characters)
        bound(f"gopher_duplicate_{n}gram", shares, most, f"characters in duplicate {n}-grams")
        # A longer n-gram that comes again holds shorter ones that do: shares only go down.
        worth &= shares > min(most for _, most in limits)


class _Spans:
    """Lines or paragraphs: their hashes and lengths, those of text i at ``offsets[i:i + 2]``."""

    def __init__(
        self,
        texts: Texts,
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        lengths: NDArray[np.int32],
        offsets: NDArray[np.int64],
    ) -> None:
        self._hashes = hash_spans(texts.data, starts, ends)
        self._lengths = lengths
        self._offsets = offsets

    @staticmethod
    def of_lines(texts: Texts, scan: Scan) -> _Spans:
        return _Spans(texts, scan.line_starts, scan.line_ends, scan.line_lengths, scan.line_offsets)

    @staticmethod
    def of_paragraphs(texts: Texts, scan: Scan) -> _Spans:
        first = np.flatnonzero(scan.paragraph)
        if not len(first):
            return _Spans.of_lines(texts, scan)  # there are no lines at all
        last = np.append(first[1:], len(scan.paragraph)) - 1
        lengths = np.add.reduceat(scan.line_lengths, first, dtype=np.int32)
        offsets = np.searchsorted(first, scan.line_offsets)
        return _Spans(texts, scan.line_starts[first], scan.line_ends[last], lengths, offsets)

    def duplicates(self, active: _Mask) -> _Floats:
        """Their share that are duplicates, ``[texts]``."""
        ones = np.ones(len(self._lengths), np.int32)
        repeated = duplicate_ngrams(self._hashes, ones, self._offsets, active, 1)
        return share(repeated, np.diff(self._offsets))

    def duplicate_characters(self, active: _Mask) -> _Floats:
        """The share of the characters that stand in duplicates, ``[texts]``."""
        repeated = duplicate_ngrams(self._hashes, self._lengths, self._offsets, active, 1)
        return share(repeated, per_text(self._lengths, self._offsets))
