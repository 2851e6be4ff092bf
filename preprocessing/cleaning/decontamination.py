"""Keeping the corpus apart from evaluation sets (Brown et al. 2020, arXiv:2005.14165, appendix C).

A document that shares an n-gram with a text of an evaluation set is dropped as a whole. The index
holds some 40 bytes for each different n-gram of the evaluation sets, in every worker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocessing.cleaning.evaluation import evaluation_texts
from preprocessing.cleaning.scanning import Scan
from preprocessing.cleaning.sequences import MAX_SETS, FoldedWords, WordSequences
from preprocessing.cleaning.settings import DecontaminationConfig
from preprocessing.cleaning.verdicts import Verdicts
from preprocessing.storage import InputError


@dataclass(frozen=True)
class EvaluationSets:
    """What no document may share, and the names of the sets."""

    names: tuple[str, ...]
    sequences: WordSequences

    @staticmethod
    def of(config: DecontaminationConfig) -> EvaluationSets:
        """Read the sets.

        Raises:
            InputError: a file or record that cannot be read, a set without any text, too many sets.
        """
        names = tuple(sorted(config.sets))
        if len(names) > MAX_SETS:
            raise InputError(
                f"corpus.clean.decontaminate.sets: {len(names)} sets; at most {MAX_SETS} have "
                "names of their own: put several files into one set"
            )
        sequences = WordSequences(
            [evaluation_texts(config.sets[name]) for name in names],
            ngram=config.ngram,
            min_words=min(config.min_words, config.ngram),
        )
        for name, count in zip(names, sequences.num_texts, strict=True):
            if count == 0:
                raise InputError(
                    f"corpus.clean.decontaminate.sets.{name}: there is no text in "
                    f"{', '.join(config.sets[name].inputs[:3])}"
                )
        return EvaluationSets(names, sequences)

    def check(self, scan: Scan, verdicts: Verdicts, hits: dict[str, int]) -> None:
        """Reject the documents that share something, and count them by set.

        Args:
            scan: of all texts.
            verdicts: takes what fails.
            hits: documents by name of the set, added to; a document may be in several.
        """
        matched = self.sequences.matches(FoldedWords.of(scan))
        matched[~verdicts.kept] = 0
        for number, name in enumerate(self.names):
            count = int(_holds(matched, number).sum())
            if count:
                hits[name] = hits.get(name, 0) + count
        verdicts.reject(
            "contaminated",
            matched != 0,
            lambda index: (
                "shares words with "
                + ", ".join(
                    n for i, n in enumerate(self.names) if _holds(matched[index : index + 1], i)
                )
            ),
        )


def _holds(matched: NDArray[np.uint64], number: int) -> NDArray[np.bool_]:
    held: NDArray[np.bool_] = (matched >> np.uint64(number)) & np.uint64(1) != 0
    return held
