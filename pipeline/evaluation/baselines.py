"""What a model has to beat: chance, token frequencies, and itself without the order of words.

- *uniform*: every token of the vocabulary is as likely: ln of its size.
- *unigram*: the tokens' frequencies in the training rows, each count one higher.
- *shuffled context*: the same model on the same targets, while the visible tokens of each sequence
  change places. What is left is what the model knows from the bag of words alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.corruption import Sequences, SpecialIds
from preprocessing.draws import uniform
from preprocessing.rows import copy_split
from preprocessing.storage import Manifest, open_shard

_PLACES, _LABELS = "targets/masked_lm/places", "targets/masked_lm/labels"


def count_tokens(directory: Path, split: str = "train") -> NDArray[np.int64]:
    """How often each token occurs in the rows of a split, special tokens left out.

    Read record batch by record batch from the memory-mapped shards. Static rows are counted as
    they were before their corruption.

    Returns:
        Counts ``[vocabulary]``.

    Raises:
        InputError: the examples are missing or damaged.
    """
    manifest = Manifest.read(directory)
    special = SpecialIds(**manifest.facts["special"])
    counts = np.zeros(special.size, dtype=np.int64)
    for copy in range(manifest.facts["splits"][split]):
        for shard in manifest.of(copy_split(split, copy)):
            reader = open_shard(directory / shard.name)
            for index in range(reader.num_record_batches):
                counts += _count_batch(reader.get_batch(index), special.size)
    counts[[special.pad, special.start, special.separator, special.mask]] = 0
    return counts


def _count_batch(batch: pa.RecordBatch, size: int) -> NDArray[np.int64]:
    column = batch.column("ids")
    ids = column.values.to_numpy(zero_copy_only=True)
    counts = np.bincount(ids, minlength=size)
    if _PLACES in batch.schema.names:
        listed, labels = batch.column(_PLACES), batch.column(_LABELS)
        starts = np.asarray(column.offsets)[:-1]
        begin = np.repeat(starts, np.diff(np.asarray(listed.offsets)))
        places = begin + listed.values.to_numpy(zero_copy_only=True)
        counts -= np.bincount(ids[places], minlength=size)
        counts += np.bincount(labels.values.to_numpy(zero_copy_only=True), minlength=size)
    return np.asarray(counts, dtype=np.int64)


def unigram_log_probabilities(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Natural logarithms ``[vocabulary]`` of add-one smoothed frequencies.

    >>> np.exp(unigram_log_probabilities(np.array([0, 5, 1])))
    array([0.11111111, 0.66666667, 0.22222222])
    """
    smoothed = counts + 1.0
    return np.asarray(np.log(smoothed) - np.log(smoothed.sum()), dtype=np.float64)


def shuffle_context(
    seen: Sequences, target_places: NDArray[Any], special: SpecialIds, *, seed: int
) -> NDArray[np.int64]:
    """Permute what a model sees of each sequence, leaving what it is asked about.

    The visible plain tokens of a sequence (neither special nor at a target's place) change places
    among themselves, in the order of keyed draws; a pure function of the sequence's tokens, its
    global id and the seed, wherever the sequence stands.

    With ``[PAD] [CLS] [SEP] [MASK]`` as 0, 1, 2, 3, seed 1, the sequences 70 and 93, and targets at
    the places 2, 8 and 10 (the last one a target that kept its token):

        tokens    1 11  3 13 14 15  2    1  3 22 23 24  2
        result    1 14  3 11 15 13  2    1  3 24 23 22  2

    Args:
        seen: the sequences with their tokens as corrupted.
        target_places: places in ``seen.tokens``, in any order, ``[targets]``.

    Returns:
        Tokens ``[tokens]``; ``seen`` is left as it is.
    """
    owner = np.repeat(np.arange(len(seen.lengths)), seen.lengths)
    places = np.arange(len(owner))
    position = places - seen.offsets[owner]
    reserved = (special.pad, special.start, special.separator, special.mask)
    moves = ~np.isin(seen.tokens, reserved) & ~np.isin(places, target_places)
    owner, position, places = owner[moves], position[moves], places[moves]
    draws = uniform(seen.keys(seed, "shuffled context", 0)[owner], position, 0)
    tokens = seen.tokens.copy()
    tokens[places] = seen.tokens[places[np.lexsort((draws, owner))]]
    return tokens
