"""C4's heuristics (Raffel et al. 2020, JMLR 21:140, section 2.2): lines first, then documents."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from preprocessing.cleaning.scanning import Scan
from preprocessing.cleaning.sequences import FoldedWords, WordSequences
from preprocessing.cleaning.settings import C4Config, ProfileConfig
from preprocessing.cleaning.verdicts import Verdicts
from preprocessing.sentences import sentence_starts
from preprocessing.texts import Texts

_CITATION = re.compile(r"\[(?:[0-9]+|edit|citation needed)\]")
_ELLIPSIS = 0x2026


class LineFilters:
    """Removes lines, and citation marks within lines.

    Attributes:
        documents: how many documents each of them changed.
        occurrences: lines or marks removed.
    """

    def __init__(self) -> None:
        self.documents: Counter[str] = Counter()
        self.occurrences: Counter[str] = Counter()

    def apply(
        self, config: C4Config, profile: ProfileConfig, texts: pa.LargeStringArray
    ) -> pa.LargeStringArray:
        """The texts of a profile with the lines that are kept."""
        if config.citation_marks:
            texts = self._without_citations(texts)
        scan = Scan.of(Texts.of(texts))
        drops = self._dropped(config, profile, texts, scan)
        owner = np.repeat(np.arange(len(texts)), scan.num_lines)
        dropped = np.zeros(len(owner), np.bool_)
        for name, lines in drops.items():
            own = lines & ~dropped
            dropped |= lines
            if own.any():
                self.documents[name] += len(np.unique(owner[own]))
                self.occurrences[name] += int(own.sum())
        changed = np.unique(owner[dropped]).tolist()
        if not changed:
            return texts
        result = texts.to_pylist()
        data = Texts.of(texts).data
        for text in changed:
            first, last = scan.line_offsets[text : text + 2].tolist()
            kept = []
            paragraph = False
            for line in range(first, last):
                paragraph |= bool(scan.paragraph[line])
                if not dropped[line]:
                    content = bytes(data[scan.line_starts[line] : scan.line_ends[line]]).decode()
                    kept.append("\n" * (1 + paragraph) + content)
                    paragraph = False
            result[text] = "".join(kept).lstrip("\n")
        return pa.array(result, pa.large_string())

    def _without_citations(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        marked = pyarrow.compute.match_substring(texts, "[").to_numpy(zero_copy_only=False)
        if not marked.any():
            return texts
        result = texts.to_pylist()
        for index in np.flatnonzero(marked).tolist():
            result[index], removed = _CITATION.subn("", result[index])
            if removed:
                self.documents["c4_citation_marks"] += 1
                self.occurrences["c4_citation_marks"] += removed
        return pa.array(result, pa.large_string())

    def _dropped(
        self, config: C4Config, profile: ProfileConfig, texts: pa.LargeStringArray, scan: Scan
    ) -> dict[str, NDArray[np.bool_]]:
        """Which lines each filter drops."""
        drops: dict[str, NDArray[np.bool_]] = {}
        if config.terminal_punctuation:
            # As the authors' code has it, an ellipsis ends no sentence.
            marks = [ord(mark) for mark in profile.terminal_punctuation if ord(mark) != _ELLIPSIS]
            drops["c4_terminal_punctuation"] = ~np.isin(scan.last, marks) | scan.ellipsis
        if config.min_line_words is not None:
            drops["c4_line_words"] = np.diff(scan.line_words) < config.min_line_words
        if config.javascript:
            drops["c4_javascript"] = _with_phrases(texts, scan, ("javascript",))
        if config.policies and profile.policies:
            drops["c4_policies"] = _with_phrases(texts, scan, profile.policies)
        return drops


def _with_phrases(
    texts: pa.LargeStringArray, scan: Scan, phrases: tuple[str, ...]
) -> NDArray[np.bool_]:
    """The lines that hold one of the phrases, in any case."""
    found = np.zeros(int(scan.line_offsets[-1]), np.bool_)
    pattern = "|".join(re.escape(phrase) for phrase in phrases)
    sought = re.compile(pattern, re.IGNORECASE)
    data = Texts.of(texts).data
    suspects = np.zeros(len(texts), np.bool_)
    for phrase in phrases:
        suspects |= pyarrow.compute.match_substring(texts, phrase, ignore_case=True).to_numpy(
            zero_copy_only=False
        )
    for text in np.flatnonzero(suspects).tolist():
        for line in range(*scan.line_offsets[text : text + 2].tolist()):
            content = bytes(data[scan.line_starts[line] : scan.line_ends[line]]).decode()
            found[line] = sought.search(content) is not None
    return found


def check_documents(
    config: C4Config,
    bad_words: WordSequences | None,
    texts: pa.LargeStringArray,
    scan: Scan,
    mine: NDArray[np.bool_],
    verdicts: Verdicts,
) -> None:
    """Apply the filters of whole documents to the texts of a profile.

    Args:
        config: which of them.
        bad_words: what no document may hold.
        texts: all texts, after their lines were filtered.
        scan: of all texts.
        mine: bool ``[texts]``, those of the profile.
        verdicts: takes what fails.
    """
    if config.lorem_ipsum:
        found = pyarrow.compute.match_substring(texts, "lorem ipsum", ignore_case=True)
        failing = mine & found.to_numpy(zero_copy_only=False)
        verdicts.reject("c4_lorem_ipsum", failing, lambda index: "holds 'lorem ipsum'")
    if config.curly_brackets:
        found = pyarrow.compute.match_substring(texts, "{")
        failing = mine & found.to_numpy(zero_copy_only=False)
        verdicts.reject("c4_curly_brackets", failing, lambda index: "holds a '{'")
    if bad_words is not None:
        failing = mine & (bad_words.matches(FoldedWords.of(scan)) != 0)
        verdicts.reject("c4_bad_words", failing, lambda index: "holds a word of the list")
    if config.min_sentences is not None:
        column = Texts.of(texts)
        starts = np.searchsorted(sentence_starts(column), column.offsets)
        sentences = np.diff(starts)
        least = config.min_sentences
        verdicts.reject(
            "c4_sentences",
            mine & (sentences < least),
            lambda index: f"number of sentences {sentences[index]}; at least {least}",
        )
