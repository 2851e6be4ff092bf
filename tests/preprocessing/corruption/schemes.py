"""What holds for every corruption scheme, and sequences to try it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from corpora import make_text, prepare_config, run_stages, write_documents
from numpy.typing import NDArray

from preprocessing.corruption import Context, Corrupted, Scheme, Sequences, SpecialIds
from preprocessing.rows import RowSet

SPECIAL = SpecialIds(size=1000, pad=0, start=2, separator=3, mask=4)
CONTEXT = Context(SPECIAL)


def from_lists(
    tokens: Sequence[Sequence[int]],
    *,
    ids: Sequence[int] | None = None,
    first_lengths: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    marks: Sequence[Sequence[int]] = (),
    backward: Sequence[bool] = (),
) -> Sequences:
    """Sequences of the given tokens, by default numbered from 0, of one segment, unlabelled."""
    lengths = [len(own) for own in tokens]
    count = len(lengths)
    return Sequences(
        tokens=np.array([token for own in tokens for token in own], dtype=np.int64),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=np.array(range(count) if ids is None else ids, dtype=np.uint64),
        first_lengths=np.array(lengths if first_lengths is None else first_lengths, dtype=np.int64),
        labels=np.array([-1] * count if labels is None else labels, dtype=np.int64),
        marks=np.array([mark for own in marks for mark in own], dtype=np.uint8),
        backward=np.array(backward, dtype=np.bool_),
    )


def special_set(special: SpecialIds) -> set[int]:
    """The ids that are never to be chosen."""
    return {special.pad, special.start, special.separator}


def chosen(sequences: Sequences, wanted: Sequence[int]) -> Sequences:
    """Some of the sequences, in the order given."""
    places = places_of(sequences.offsets, wanted)
    lengths = sequences.lengths[list(wanted)]
    return Sequences(
        tokens=sequences.tokens[places],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=sequences.ids[list(wanted)],
        first_lengths=sequences.first_lengths[list(wanted)],
        labels=sequences.labels[list(wanted)],
        marks=sequences.marks[places] if len(sequences.marks) else sequences.marks,
        backward=sequences.backward[list(wanted) if len(sequences.backward) else slice(None)],
    )


def places_of(offsets: NDArray[np.int64], wanted: Sequence[int]) -> NDArray[np.int64]:
    """Places of the tokens of some sequences."""
    parts = [np.arange(offsets[one], offsets[one + 1]) for one in wanted]
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def apart(corrupted: Corrupted) -> list[dict[str, list[float]]]:
    """What became of each sequence: plain lists, places counted from its own beginning."""
    found = []
    for number in range(len(corrupted.inputs.ids)):
        begin, end = corrupted.inputs.offsets[number : number + 2]
        own = {"tokens": corrupted.inputs.tokens[begin:end].tolist()}
        own |= {name: values[begin:end].tolist() for name, values in corrupted.channels.items()}
        decoder = corrupted.decoder
        if decoder is not None:
            own["decoder"] = decoder.tokens[slice(*decoder.offsets[number : number + 2])].tolist()
        for name, targets in corrupted.targets.items():
            if targets.of_decoder:
                assert decoder is not None
                low, high = decoder.offsets[number : number + 2]
            else:
                low, high = begin, end
            inside = (targets.places >= low) & (targets.places < high)
            own[f"{name} places"] = (targets.places[inside] - low).tolist()
            own[f"{name} labels"] = targets.labels[inside].tolist()
            for key, values in targets.extra.items():
                shift = low if key.endswith("_place") else 0
                own[f"{name} {key}"] = (values[inside] - shift).tolist()
        found.append(own)
    return found


def check_purity(
    scheme: Scheme, context: Context, sequences: Sequences, order: Sequence[int]
) -> None:
    """A sequence is corrupted alike in any company, and what was given is not written to."""
    before = sequences.tokens.copy()
    whole = apart(scheme.corrupt(context, sequences, seed=1, epoch=3))
    part = apart(scheme.corrupt(context, chosen(sequences, order), seed=1, epoch=3))
    assert part == [whole[one] for one in order]
    assert (sequences.tokens == before).all()


def check_bounds(
    scheme: Scheme, context: Context, sequences: Sequences, corrupted: Corrupted
) -> None:
    """Nothing is longer, and nothing more is asked, than the scheme says beforehand."""
    limits = scheme.bounds(context, sequences.lengths)
    assert (corrupted.inputs.lengths <= limits.inputs).all()
    assert corrupted.targets.keys() == limits.targets.keys()
    sides = {False: corrupted.inputs.offsets}
    assert (corrupted.decoder is None) == (limits.decoder is None)
    if corrupted.decoder is not None and limits.decoder is not None:
        sides[True] = corrupted.decoder.offsets
        assert (np.diff(sides[True]) <= limits.decoder).all()
    for name, targets in corrupted.targets.items():
        owner = np.searchsorted(sides[targets.of_decoder], targets.places, side="right") - 1
        counts = np.bincount(owner, minlength=len(sequences.ids))
        assert (counts <= limits.targets[name]).all(), name


def check_nothing(scheme: Scheme, context: Context) -> None:
    """Of no sequences at all it makes nothing, under the same names as of some."""
    none = from_lists([])
    if scheme.marks():
        none = replace(none, marks=np.zeros(0, dtype=np.uint8))
    corrupted = scheme.corrupt(context, none, seed=1, epoch=0)
    assert corrupted.inputs.tokens.tolist() == []
    assert corrupted.inputs.offsets.tolist() == [0]
    assert scheme.bounds(context, none.lengths).targets.keys() == corrupted.targets.keys()
    for targets in corrupted.targets.values():
        assert targets.places.tolist() == targets.labels.tolist() == []


def restored(corrupted: Corrupted, name: str = "masked_lm") -> NDArray[np.int64]:
    """The tokens with every target put back."""
    tokens = corrupted.inputs.tokens.copy()
    tokens[corrupted.targets[name].places] = corrupted.targets[name].labels
    return tokens


def framed(lengths: Sequence[int]) -> Sequences:
    """[CLS], a first segment, [SEP], a second one where there is room, [SEP]; without marks."""
    tokens, first_lengths = [], []
    for row, length in enumerate(lengths):
        own = (5 + (row * 7919 + np.arange(length)) % 995).tolist()
        first_lengths.append(length if length < 5 else length // 2 + 1)
        own[first_lengths[-1] - 1] = own[-1] = SPECIAL.separator
        own[0] = SPECIAL.start
        tokens.append(own)
    return from_lists(tokens, first_lengths=first_lengths)


def check_static_is_dynamic(
    folder: Path, corruption: Mapping[str, Any], **examples: Any
) -> dict[str, NDArray[Any]]:
    """Copy c of static rows equals epoch c of dynamic ones, packed; returns epoch 1's arrays."""
    write_documents(folder / "raw" / "a.txt", make_text(40))
    common = {
        "length": 32,
        "layout": {"kind": "blocks"},
        "pack": True,
        "corruption": dict(corruption),
        "copies": 2,
        **examples,
    }
    preparation = prepare_config(
        folder, examples={mode: common | {"mode": mode} for mode in ("static", "dynamic")}
    )
    run_stages(preparation)
    static, dynamic = (
        RowSet(preparation.examples_directory(mode), "train", seed=preparation.seed)
        for mode in ("static", "dynamic")
    )
    scheme = preparation.examples["dynamic"].corruption
    assert static.num_rows == dynamic.num_rows
    assert (static.static, dynamic.static) == (True, False)
    assert len(static.num_rows) == 2
    for epoch in range(2):
        rows = np.random.default_rng(epoch).permutation(static.num_rows[epoch])
        a, b = (one.arrays(scheme, rows, epoch=epoch).named() for one in (static, dynamic))
        assert a.keys() == b.keys()
        for name, values in a.items():
            assert (values == b[name]).all(), name
    return a
