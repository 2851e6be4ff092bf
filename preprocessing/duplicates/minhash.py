"""MinHash signatures by the library ``rensa``, and the keys of their bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.draws import mix, purpose_key
from preprocessing.duplicates import Bands, NearConfig
from preprocessing.duplicates.shingles import shingle_hashes
from preprocessing.storage import InputError
from preprocessing.texts import Texts

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEED = 1
_TEXT_BYTES = 1 << 22


def signatures(texts: Texts, near: NearConfig) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Signatures ``[texts, num_hashes]``, and which texts ``[texts]`` have a shingle at all.

    Needs no more memory than 4 MiB of text do, or the longest text if that is longer.
    """
    rensa = _library()
    found, present = [np.zeros((0, near.num_hashes), np.uint32)], [np.zeros(0, np.bool_)]
    for part in _parts(texts):
        hashes, offsets = shingle_hashes(part, near.ngram)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets, near.num_hashes, _SEED
        )
        found.append(np.array(matrix.to_rows(), np.uint32).reshape(len(part), near.num_hashes))
        present.append(np.diff(offsets) > 0)
    return np.concatenate(found), np.concatenate(present)


def band_keys(found: NDArray[np.uint32], bands: Bands) -> NDArray[np.uint64]:
    """A 64-bit key ``[texts, bands]`` for each band of each signature ``[texts, num_hashes]``.

    Documents are compared where a key is equal. The band's number is part of its key.
    """
    cut = found[:, : bands.count * bands.rows].reshape(len(found), bands.count, bands.rows)
    keys = np.broadcast_to(
        mix(purpose_key(_SEED, "bands") ^ np.arange(bands.count, dtype=np.uint64)), cut.shape[:2]
    )
    for row in range(bands.rows):
        keys = mix(keys ^ cut[:, :, row].astype(np.uint64))
    return keys


def algorithm() -> str:
    """What else decides a signature: the library, and the version of its algorithm."""
    return f"rensa R-MinHash {_library().RMinHash.ALGORITHM_VERSION}"


def _library() -> Any:
    try:
        import rensa
    except ImportError:
        raise InputError(
            "corpus.deduplicate.near needs the library rensa: pip install 'lexmill[clean]'"
        ) from None
    return rensa


def _parts(texts: Texts) -> Iterator[Texts]:
    """Consecutive texts of at most 4 MiB together, or one longer text alone."""
    start = 0
    while start < len(texts):
        limit = texts.offsets[start] + _TEXT_BYTES
        stop = int(np.searchsorted(texts.offsets, limit, side="right")) - 1
        stop = min(len(texts), max(start + 1, stop))
        yield Texts(texts.data, texts.offsets[start : stop + 1])
        start = stop
