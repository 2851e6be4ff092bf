"""Text of any size whose vocabulary grows as that of natural text: after n words about K n^B.

Every word of a text is new with the probability that Heaps' law asks for, K B n^(B - 1), and one
of the earlier words otherwise, the k-th oldest about as often as Zipf's law says. Spelling is a
function of the word's number alone, shorter for older words.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HEAPS_K, HEAPS_B = 30.0, 0.57
WORDS_PER_BLOCK = 1 << 18
_LETTERS = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", dtype=np.uint8)


def write_natural_text(path: Path, num_bytes: int, seed: int = 1) -> int:
    """Write documents of 40 to 2000 words, a blank line between; returns the distinct words."""
    draw = np.random.default_rng(seed)
    known = written = words = 0
    with open(path, "wb") as file:
        while written < num_bytes:
            numbers, known = _numbers(draw, words, known)
            words += len(numbers)
            block = _spelled(draw, numbers)
            written += file.write(block[: num_bytes - written] + b"\n")
    return known


def _numbers(draw: np.random.Generator, before: int, known: int) -> tuple[NDArray[np.int64], int]:
    """Numbers of the next words, and how many are known after them."""
    places = before + np.arange(1, WORDS_PER_BLOCK + 1)
    fresh = draw.random(WORDS_PER_BLOCK) < HEAPS_K * HEAPS_B * places ** (HEAPS_B - 1.0)
    fresh[0] |= known == 0
    there = known + np.cumsum(fresh)
    # Zipf with exponent 1 over the ranks 1..n is close to n^u for a uniform u.
    ranks = np.floor(there ** draw.random(WORDS_PER_BLOCK)).astype(np.int64) - 1
    return np.where(fresh, there - 1, np.minimum(ranks, there - 1)), int(there[-1])


def _spelled(draw: np.random.Generator, numbers: NDArray[np.int64]) -> bytes:
    lengths = 2 + (np.log2(numbers + 1.0) / 2.2).astype(np.int64)
    ends = draw.random(len(numbers))
    stops = np.where(ends < 0.06, 2, np.where(ends < 0.001 + 0.06, 3, 1))  # " ", ". ", ".\n\n"
    total = lengths + stops
    starts = np.concatenate([[0], np.cumsum(total)])
    letters = np.full(starts[-1], ord(" "), dtype=np.uint8)
    # Spelled from a scrambled number, so that words with near numbers do not look alike.
    state = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    for place in range(int(lengths.max())):
        inside = place < lengths
        letters[starts[:-1][inside] + place] = _LETTERS[(state[inside] % np.uint64(26)).astype(int)]
        state = state // np.uint64(26) ^ (state << np.uint64(7))
    sentence = stops > 1
    letters[starts[:-1][sentence] + lengths[sentence]] = ord(".")
    paragraph = stops == 3
    letters[starts[:-1][paragraph] + lengths[paragraph] + 1] = ord("\n")
    letters[starts[:-1][paragraph] + lengths[paragraph] + 2] = ord("\n")
    return letters.tobytes()
