"""Words of Chinese text by jieba.

Only stretches of Han characters are segmented, each by itself: what stands around them keeps the
words that the vocabulary sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from preprocessing.annotations.matching import han_places, traits
from preprocessing.annotations.settings import JiebaConfig
from preprocessing.storage import InputError
from preprocessing.texts import Texts


class Jieba:
    """A segmenter with a dictionary of its own in memory.

    jieba would keep the dictionary it parsed in the temporary folder that all users share, and
    load what it finds there; so it is parsed here, once a process.

    Raises:
        InputError: jieba is not installed, or the dictionary cannot be read.
    """

    def __init__(self, config: JiebaConfig) -> None:
        jieba_version()
        from jieba import Tokenizer

        self._hmm = config.hmm
        self._tokenizer = Tokenizer()
        try:
            own = self._tokenizer.get_dict_file
            with config.dictionary.open("rb") if config.dictionary else own() as file:
                words, total = self._tokenizer.gen_pfdict(file)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{config.dictionary}: cannot read jieba's dictionary, "
                f"'word frequency [tag]' a line: {error}"
            ) from error
        self._tokenizer.FREQ, self._tokenizer.total = words, total
        self._tokenizer.initialized = True

    def words(self, texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The Han characters of a column, and which of them begin a word.

        Returns:
            places: int64 ``[characters]``, ascending, in ``texts.data``.
            begins: bool ``[characters]``.
        """
        first, last = int(texts.offsets[0]), int(texts.offsets[-1])
        places = han_places(texts.data, first, last, traits())
        lengths = (
            len(word)
            for stretch in _stretches(texts, places)
            for word in self._tokenizer.cut(stretch, HMM=self._hmm)
        )
        ends = np.cumsum(np.fromiter(lengths, np.int64))
        begins = np.zeros(len(places) + 1, np.bool_)
        begins[ends] = begins[0] = True
        return places, begins[:-1]


def _stretches(texts: Texts, places: NDArray[np.int64]) -> Iterator[str]:
    """Runs of characters without anything between them, none across two texts."""
    if not len(places):
        return
    ends = places + 3 + (texts.data[places] >= 0xF0)
    parted = (places[1:] != ends[:-1]) | np.isin(places[1:], texts.offsets)
    (last,) = np.nonzero(np.append(parted, True))
    first = np.append(0, last[:-1] + 1)
    for begin, end in zip(places[first].tolist(), ends[last].tolist(), strict=True):
        yield bytes(texts.data[begin:end]).decode()


def jieba_version() -> str:
    """The version that is installed, which brings its own dictionary.

    Raises:
        InputError: there is none.
    """
    try:
        return metadata.version("jieba")
    except metadata.PackageNotFoundError as error:
        raise InputError(
            "corpus.annotations.segmenter: jieba is not installed: pip install lexmill[zh]"
        ) from error
