"""The loop of :mod:`preprocessing.corruption.span_corruption`."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.kernels.picking import INT64, OUT, UINT64, choose

COMPILED_WITH = {"picking.py": "010a19a602c1e544"}

_CUT_NOISE, _CUT_REST = 0, 1  # what the draws of a cut are taken for


@compiled(
    numba.void(
        numba.uint64,
        numba.int64,
        numba.int64,
        numba.int64,
        OUT,
        numba.uint64[::1],
    )
)
def _cut(
    key: np.uint64,
    size: int,
    pieces: int,
    draw: int,
    ends: NDArray[np.int64],
    scratch: NDArray[np.uint64],
) -> None:
    """Where ``pieces`` pieces of ``size`` tokens end, all ways to cut being equally likely."""
    for place in range(1, size):
        ends[place - 1] = place
    cuts = choose(key, ends, max(0, size - 1), pieces - 1, draw, scratch, 0)
    ends[cuts] = size


@compiled(numba.void(INT64, INT64, UINT64, INT64, INT64, INT64, numba.int64, OUT, OUT))
def remove_spans(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    keys: NDArray[np.uint64],
    num_noise: NDArray[np.int64],
    num_spans: NDArray[np.int64],
    sentinels: NDArray[np.int64],
    end: int,
    inputs: NDArray[np.int64],
    said: NDArray[np.int64],
) -> None:
    """Write what the encoder sees and what the decoder is to say, one sequence behind the other."""
    longest = 0
    for number in range(len(keys)):
        longest = max(longest, offsets[number + 1] - offsets[number])
    noise_ends, rest_ends = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    scratch = np.empty(2 * longest, np.uint64)
    seen = told = 0
    for number in range(len(keys)):
        place = offsets[number]
        noise, spans = num_noise[number], num_spans[number]
        rest = offsets[number + 1] - place - noise
        _cut(keys[number], noise, spans, _CUT_NOISE, noise_ends, scratch)
        _cut(keys[number], rest, spans, _CUT_REST, rest_ends, scratch)
        gone = stayed = 0
        for span in range(spans):
            while stayed < rest_ends[span]:
                inputs[seen] = tokens[place]
                seen, place, stayed = seen + 1, place + 1, stayed + 1
            inputs[seen] = said[told] = sentinels[span]
            seen, told = seen + 1, told + 1
            while gone < noise_ends[span]:
                said[told] = tokens[place]
                told, place, gone = told + 1, place + 1, gone + 1
        inputs[seen] = said[told] = end
        seen, told = seen + 1, told + 1
