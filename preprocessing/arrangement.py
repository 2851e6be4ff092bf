"""From corrupted sequences to arrays of static shape: what a micro-batch looks like.

inputs        [CLS] a b [SEP]  [CLS] c [SEP]          two sequences of one row
ids           [CLS] a b [SEP]  [CLS] c [SEP]  [PAD]
sequence_ids      1 1 1     1      2 2     2      0
positions         0 1 2     3      0 1     2      0
segment_ids       0 0 0     0      0 0     0      0
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from preprocessing.compiled import compiled
from preprocessing.corruption import Corrupted, Targets
from preprocessing.corruption.base import UNLABELLED
from preprocessing.kernels.picking import INT64, OUT

IGNORED = -100
"""The label of a padded target."""


@dataclass(frozen=True)
class Shape:
    """What is static about the rows of an examples set.

    Attributes:
        length: tokens of a row.
        max_targets: of a row, by objective.
        max_sequences: of a row.
        label: the objective that predicts the sequences' labels; None where there is none.
        decoder_length: tokens of a row of the decoder's; None where there is no decoder.
        pad: the id that fills up rows.
    """

    length: int
    max_targets: Mapping[str, int]
    max_sequences: int
    label: str | None = None
    decoder_length: int | None = None
    pad: int = 0


@dataclass(frozen=True)
class TargetArrays:
    """As ``pipeline.batch.Targets``."""

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    of_decoder: bool = False


@dataclass(frozen=True)
class Arrays:
    """A micro-batch before it becomes tensors; shapes as in ``pipeline.batch.Batch``."""

    ids: NDArray[np.int64]
    sequence_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    segment_ids: NDArray[np.int64]
    targets: Mapping[str, TargetArrays]
    channels: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    decoder: Arrays | None = None

    def named(self) -> dict[str, NDArray[Any]]:
        """Every array by its name: ``ids``, ``targets/masked_lm/labels``, ``decoder/ids``, ..."""
        named: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _PER_TOKEN}
        named |= {f"channels/{name}": values for name, values in self.channels.items()}
        for name, own in self.targets.items():
            side = "decoder_targets" if own.of_decoder else "targets"
            named |= {f"{side}/{name}/indices": own.indices, f"{side}/{name}/labels": own.labels}
            named |= {f"{side}/{name}/extra/{key}": column for key, column in own.extra.items()}
        if self.decoder is not None:
            inner = self.decoder.named()
            named |= {f"decoder/{name}": values for name, values in inner.items()}
        return named


_PER_TOKEN = ("ids", "sequence_ids", "positions", "segment_ids")


def arrange(corrupted: Corrupted, row_of: NDArray[np.int64], num_rows: int, shape: Shape) -> Arrays:
    """Lay out a micro-batch: who belongs to which sequence, where, and what is to be predicted.

    Args:
        row_of: the row of each sequence ``[sequences]``, ascending.
    """
    inputs, channels = corrupted.inputs, corrupted.channels
    arrays, where = _lay_out(
        inputs.tokens,
        inputs.offsets,
        inputs.first_lengths,
        row_of,
        num_rows,
        shape.length,
        shape.pad,
    )
    segments = {"segment_ids": inputs.segments} if len(inputs.segments) else {}
    own = {
        name: _spread(values, where, num_rows * shape.length).reshape(num_rows, shape.length)
        for name, values in {**segments, **channels}.items()
    }
    for name in ("positions", "segment_ids"):
        if name in own:
            arrays[name] = own.pop(name)
    decoder = decoder_where = None
    if corrupted.decoder is not None:
        assert shape.decoder_length is not None
        side = corrupted.decoder
        laid, decoder_where = _lay_out(
            side.tokens,
            side.offsets,
            np.diff(side.offsets),
            row_of,
            num_rows,
            shape.decoder_length,
            shape.pad,
        )
        decoder = _arrays(laid, {}, {}, None)
    targets = {}
    for name, given in corrupted.targets.items():
        places = decoder_where if given.of_decoder else where
        assert places is not None
        targets[name] = _pad(given, places, num_rows * shape.max_targets[name])
    if shape.label is not None:
        labelled = np.flatnonzero(inputs.labels != UNLABELLED)
        labels = Targets(inputs.offsets[:-1][labelled], inputs.labels[labelled])
        targets[shape.label] = _pad(labels, where, num_rows * shape.max_sequences)
    return _arrays(arrays, targets, own, decoder)


def _arrays(
    per_token: Mapping[str, NDArray[np.int64]],
    targets: Mapping[str, TargetArrays],
    channels: Mapping[str, NDArray[np.int64]],
    decoder: Arrays | None,
) -> Arrays:
    return Arrays(
        ids=per_token["ids"],
        sequence_ids=per_token["sequence_ids"],
        positions=per_token["positions"],
        segment_ids=per_token["segment_ids"],
        targets=targets,
        channels=channels,
        decoder=decoder,
    )


def _lay_out(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    row_of: NDArray[np.int64],
    num_rows: int,
    length: int,
    pad: int,
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """The arrays that every side has, and where each token went, ``[tokens]``."""
    out = np.empty((4, num_rows * length), dtype=np.int64)
    where = np.empty(len(tokens), dtype=np.int64)
    longest = _fill(tokens, offsets, first_lengths, row_of, length, pad, *out, where)
    if longest > length:
        raise ValueError(f"a row of {longest} tokens does not fit {length}")
    shaped = out.reshape(4, num_rows, length)
    return dict(zip(_PER_TOKEN, shaped, strict=True)), where


def _spread(values: NDArray[np.int64], where: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    spread = np.zeros(size, dtype=np.int64)
    spread[where] = values
    return spread


def _pad(targets: Targets, where: NDArray[np.int64], count: int) -> TargetArrays:
    if len(targets.places) > count:
        raise ValueError(f"{len(targets.places)} targets, where there is room for {count}")

    def padded(values: NDArray[Any], fill: int) -> NDArray[Any]:
        column = np.full(count, fill, dtype=values.dtype)
        column[: len(values)] = values
        return column

    return TargetArrays(
        padded(where[targets.places], 0),
        padded(targets.labels, IGNORED),
        {
            name: padded(where[values] if name.endswith("_place") else values, 0)
            for name, values in targets.extra.items()
        },
        targets.of_decoder,
    )


@compiled(
    numba.int64(INT64, INT64, INT64, INT64, numba.int64, numba.int64, OUT, OUT, OUT, OUT, OUT)
)
def _fill(
    tokens: NDArray[np.int64],
    offsets: NDArray[np.int64],
    first_lengths: NDArray[np.int64],
    row_of: NDArray[np.int64],
    length: int,
    pad: int,
    ids: NDArray[np.int64],
    sequence_ids: NDArray[np.int64],
    positions: NDArray[np.int64],
    segment_ids: NDArray[np.int64],
    where: NDArray[np.int64],
) -> int:
    """Fill all rows; returns the tokens of the fullest one, and stops where one is too full."""
    number, longest = 0, 0
    for row in range(len(ids) // length):
        place, rank, end = row * length, 0, (row + 1) * length
        while number < len(row_of) and row_of[number] == row:
            rank += 1
            begin, size = offsets[number], offsets[number + 1] - offsets[number]
            longest = max(longest, place + size - row * length)
            if longest > length:
                return int(longest)
            first = first_lengths[number]
            for index in range(size):
                ids[place + index] = tokens[begin + index]
                sequence_ids[place + index] = rank
                positions[place + index] = index
                segment_ids[place + index] = index >= first
                where[begin + index] = place + index
            place += size
            number += 1
        for rest in range(place, end):
            ids[rest] = pad
            sequence_ids[rest] = positions[rest] = segment_ids[rest] = 0
    return int(longest)


def interleave(parts: Sequence[Arrays], places: Sequence[NDArray[np.int64]]) -> Arrays:
    """Micro-batches as one: row i of a part becomes row ``places[part][i]``.

    Targets stand in the order of the rows, those of a row as they were, and padding last.
    """
    order = np.concatenate(places)
    joined = join(parts)
    if (order == np.arange(len(order))).all():
        return joined

    def moved(arrays: Arrays) -> dict[str, NDArray[np.int64]]:
        found = {name: np.empty_like(getattr(arrays, name)) for name in _PER_TOKEN}
        for name, values in found.items():
            values[order] = getattr(arrays, name)
        return found

    def targets(own: TargetArrays) -> TargetArrays:
        side = joined.decoder if own.of_decoder else joined
        assert side is not None
        length = side.ids.shape[1]

        def shifted(indices: NDArray[np.int64]) -> NDArray[np.int64]:
            rows, within = np.divmod(indices, length)
            return np.asarray(order[rows] * length + within)

        indices = shifted(own.indices)
        padding = own.labels == IGNORED
        by_row = np.argsort(np.where(padding, len(order), indices // length), kind="stable")
        rest = padding[by_row]

        def sorted_(values: NDArray[Any]) -> NDArray[Any]:
            return np.where(rest, 0, values[by_row]).astype(values.dtype)

        return TargetArrays(
            sorted_(indices),
            own.labels[by_row],
            {
                name: sorted_(shifted(values) if name.endswith("_place") else values)
                for name, values in own.extra.items()
            },
            own.of_decoder,
        )

    channels = {name: np.empty_like(values) for name, values in joined.channels.items()}
    for name, values in channels.items():
        values[order] = joined.channels[name]
    decoder = joined.decoder
    return _arrays(
        moved(joined),
        {name: targets(own) for name, own in joined.targets.items()},
        channels,
        None if decoder is None else _arrays(moved(decoder), {}, {}, None),
    )


def single_row(arrays: Arrays, row: int) -> Arrays:
    """One row of a micro-batch, with its own targets and no padded ones."""

    def tokens(own: Arrays) -> dict[str, NDArray[np.int64]]:
        return {name: getattr(own, name)[row : row + 1] for name in _PER_TOKEN}

    def targets(own: TargetArrays) -> TargetArrays:
        side = arrays.decoder if own.of_decoder else arrays
        assert side is not None
        length = side.ids.shape[1]
        kept = (own.indices // length == row) & (own.labels != IGNORED)
        first = row * length
        return TargetArrays(
            own.indices[kept] - first,
            own.labels[kept],
            {
                name: values[kept] - first if name.endswith("_place") else values[kept]
                for name, values in own.extra.items()
            },
            own.of_decoder,
        )

    decoder = arrays.decoder
    return _arrays(
        tokens(arrays),
        {name: targets(own) for name, own in arrays.targets.items()},
        {name: values[row : row + 1] for name, values in arrays.channels.items()},
        None if decoder is None else _arrays(tokens(decoder), {}, {}, None),
    )


def join(parts: Sequence[Arrays]) -> Arrays:
    """Micro-batches below each other."""
    if len(parts) == 1:
        return parts[0]
    main = np.cumsum([0, *(part.ids.size for part in parts)])
    decoders = [part.decoder for part in parts if part.decoder is not None]
    other = np.cumsum([0, *(decoder.ids.size for decoder in decoders)])

    def targets(name: str) -> TargetArrays:
        own = [part.targets[name] for part in parts]
        shifts = other if own[0].of_decoder else main
        return TargetArrays(
            np.concatenate([one.indices + shift for one, shift in zip(own, shifts, strict=False)]),
            np.concatenate([one.labels for one in own]),
            {
                key: np.concatenate(
                    [
                        one.extra[key] + shift if key.endswith("_place") else one.extra[key]
                        for one, shift in zip(own, shifts, strict=False)
                    ]
                )
                for key in own[0].extra
            },
            own[0].of_decoder,
        )

    return _arrays(
        {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_TOKEN},
        {name: targets(name) for name in parts[0].targets},
        {
            name: np.concatenate([part.channels[name] for part in parts])
            for name in parts[0].channels
        },
        join(decoders) if decoders else None,
    )
