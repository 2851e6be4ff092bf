"""Rows of examples as the loader makes them: by the same functions, with the same keys.

    train row 0, epoch 0: 2 sequences, 24 of 32 tokens
      1 A  [CLS] the {man → [MASK]} went to a {. → store} [SEP]
        B  he {left = left} [SEP]

A target of masked language modelling stands in braces: what was there, and what the model sees
instead; ``=`` where it sees the truth. Those of other objectives are listed behind the row, with
the token that stands at their place, and so is what a decoder sees.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pydantic
from rich.text import Text

from preprocessing.arrangement import IGNORED, Arrays
from preprocessing.corruption import CorruptionConfig, Sequences
from preprocessing.corruption.base import UNLABELLED
from preprocessing.inspection.outputs import (
    Batches,
    Output,
    Selection,
    find_vocabulary,
    pieces,
)
from preprocessing.inspection.terminal import on_a_line
from preprocessing.rows import ROWS_PER_BATCH, RowSet, copy_split, split_of
from preprocessing.storage import InputError
from preprocessing.vocabulary import Vocabulary

FATES: Mapping[str, str] = {"masked": "red", "random": "yellow", "kept": "green"}
"""What becomes of a target, and its colour."""
LEGEND = "targets: {truth → [MASK]} masked, {truth → other} random, {truth = truth} kept"
_PAIR_LABELS = {0: "next", 1: "random"}
_HIDDEN = "masked_lm"
"""The objective whose targets stand where they belong, in braces."""


def read_examples(output: Output, selection: Selection) -> Iterator[dict[str, Any]]:
    """The selected rows of one split in one epoch, as plain values.

    Raises:
        InputError: no such split or epoch, damaged shards, or something that examples do not have.
    """
    if selection.id is not None or selection.grep is not None:
        raise InputError(
            f"{output.directory}: examples have neither ids nor text of documents to look for; "
            "choose by --rows, --split and --epoch"
        )
    assert output.manifest is not None
    configuration, facts = output.manifest.configuration, output.manifest.facts
    splits: Mapping[str, int] = facts["splits"]
    split, epoch, rows, bucket = _place(output, selection, splits)
    if split not in splits:
        raise InputError(f"{output.directory}: no split '{split}' here; there are {list(splits)}")
    row_set = RowSet(output.directory, split, seed=configuration["seed"], bucket=bucket)
    corruption: CorruptionConfig = pydantic.TypeAdapter(CorruptionConfig).validate_json(
        json.dumps(configuration["examples"]["corruption"])
    )
    vocabulary = find_vocabulary(output)
    copy = epoch % splits[split]
    rows = rows[: max(0, row_set.num_rows[copy] - rows.start)]
    _check(output, copy_split(split, copy, bucket), rows)
    for row in rows:
        arrays = row_set.arrays(corruption, np.array([row]), epoch=epoch)
        yield {
            "row": row,
            "split": split,
            "epoch": epoch,
            "copy": copy,
            **plain_row(arrays, row_set, row_set.read(copy, np.array([row])).sequences, vocabulary),
        }


def _place(
    output: Output, selection: Selection, splits: Mapping[str, int]
) -> tuple[str, int, range, int | None]:
    """Split, epoch, rows and, where they are shorter, their length; of a single shard its own."""
    assert output.manifest is not None
    if output.shards == output.manifest.shards:
        split = selection.split or ("train" if "train" in splits else next(iter(splits)))
        return split, selection.epoch or 0, selection.rows, None
    (shard,) = output.shards
    split, copy, bucket = split_of(shard.split)
    epoch = copy if selection.epoch is None else selection.epoch
    if selection.split not in (None, split) or epoch % splits[split] != copy:
        raise InputError(
            f"{output.directory / shard.name}: this shard belongs to split '{split}' and to "
            f"epochs {copy}, {copy + splits[split]}, ...; name the directory to see others"
        )
    before = 0
    for other in output.manifest.of(shard.split):
        if other.name == shard.name:
            break
        before += other.rows
    stop = min(selection.rows.stop, shard.rows)
    return split, epoch, range(before + min(selection.rows.start, stop), before + stop), bucket


def _check(output: Output, folder: str, rows: range) -> None:
    """Look for damage in the record batches that hold the rows."""
    assert output.manifest is not None
    first = 0
    for shard in output.manifest.of(folder):
        own = range(max(rows.start, first) - first, min(rows.stop, first + shard.rows) - first)
        if own:
            batches = Batches(output.directory / shard.name)
            for index in range(own.start // ROWS_PER_BATCH, own[-1] // ROWS_PER_BATCH + 1):
                batches[index]
        first += shard.rows


def plain_row(
    arrays: Arrays, row_set: RowSet, stored: Sequences, vocabulary: Vocabulary | None
) -> dict[str, Any]:
    """One row as plain values.

    Args:
        arrays: the row alone.
        stored: its sequences as they were before the corruption.
    """
    shown, label = arrays.ids.reshape(-1), row_set.shape.label
    lengths = np.bincount(arrays.sequence_ids.reshape(-1), minlength=len(stored.ids) + 1)[1:]
    decoder = arrays.decoder
    return {
        "ids": shown.tolist(),
        "pieces": pieces(vocabulary, shown.tolist()),
        "sequence_ids": arrays.sequence_ids.reshape(-1).tolist(),
        "segment_ids": arrays.segment_ids.reshape(-1).tolist(),
        "positions": arrays.positions.reshape(-1).tolist(),
        "channels": {name: values.reshape(-1).tolist() for name, values in arrays.channels.items()},
        "sequences": [
            {"id": int(one), "length": int(length), "pair": _pair(label, int(own))}
            for one, length, own in zip(stored.ids, lengths, stored.labels, strict=True)
        ],
        "targets": [
            {
                "place": place,
                "truth": pieces(vocabulary, [truth])[0],
                "shown": pieces(vocabulary, [int(shown[place])])[0],
                "fate": _fate(int(shown[place]), truth, row_set.special.mask),
            }
            for place, truth, _ in _real_targets(arrays, _HIDDEN)
        ],
        "predictions": {
            name: [
                {
                    "place": place,
                    "label": pieces(vocabulary, [value])[0] if _is_token(name) else value,
                    "of_decoder": arrays.targets[name].of_decoder,
                    "extra": extra,
                }
                for place, value, extra in _real_targets(arrays, name)
            ]
            for name in arrays.targets
            if name not in (_HIDDEN, label)
        },
        "decoder": None
        if decoder is None
        else {
            "ids": decoder.ids.reshape(-1).tolist(),
            "pieces": pieces(vocabulary, decoder.ids.reshape(-1).tolist()),
            "sequence_ids": decoder.sequence_ids.reshape(-1).tolist(),
        },
    }


def _real_targets(arrays: Arrays, name: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Place, label and what else is known of each target that is no padding."""
    asked = arrays.targets.get(name)
    if asked is None:
        return
    for number in np.flatnonzero(asked.labels != IGNORED).tolist():
        extra = {key: values[number].item() for key, values in asked.extra.items()}
        yield int(asked.indices[number]), int(asked.labels[number]), extra


def _is_token(objective: str) -> bool:
    """Whether labels are tokens; of all others they are classes."""
    return objective.endswith("_lm") or objective in ("denoising", "span_boundary")


def _pair(objective: str | None, label: int) -> str | None:
    """The label of a sequence in words, or as a number where there are none."""
    if objective is None or label == UNLABELLED:
        return None
    return _PAIR_LABELS[label] if objective == "next_sentence" else f"{objective} {label}"


def _fate(shown: int, truth: int, mask: int) -> str:
    """What became of a target; a random token that hits the truth counts as kept."""
    return "masked" if shown == mask else "kept" if shown == truth else "random"


def render(plain: Mapping[str, Any]) -> Text:
    """A row for a terminal."""
    length = len(plain["ids"])
    filled = sum(1 for one in plain["sequence_ids"] if one)
    fates = [target["fate"] for target in plain["targets"]]
    title = f"{on_a_line(plain['split'])} row {plain['row']:,}, epoch {plain['epoch']}"
    text = Text.assemble((title, "bold"))
    text.append(
        f": {len(plain['sequences'])} sequences, {filled} of {length} tokens, "
        + ", ".join(f"{fates.count(fate)} {fate}" for fate in FATES)
        + "\n"
    )
    targets = {target["place"]: target for target in plain["targets"]}
    place = 0
    for number, sequence in enumerate(plain["sequences"], 1):
        stop = place + sequence["length"]
        pair = f", pair: {sequence['pair']}" if sequence["pair"] else ""
        text.append(f"  ── {number}: sequence {sequence['id']}{pair}\n", style="dim")
        segment = None
        for at in range(place, stop):
            if plain["segment_ids"][at] != segment:
                segment = plain["segment_ids"][at]
                name = chr(ord("A") + segment)
                text.append(("" if at == place else "\n") + f"  {name} ", style="dim")
            text.append(" ").append_text(
                _token(plain["pieces"][at], targets.get(at), plain["segment_ids"][at])
            )
        text.append("\n")
        for name, values in _numbers(plain, range(place, stop)).items():
            text.append(f"    {name} {' '.join(map(str, values))}\n", style="dim")
        place = stop
    if place < length:
        text.append(f"  ── {length - place} of padding\n", style="dim")
    return text.append_text(_behind(plain))


def _numbers(plain: Mapping[str, Any], tokens: range) -> dict[str, list[int]]:
    """What is said of each token of a sequence beside itself: channels, positions with gaps."""
    told = {name: values[tokens.start : tokens.stop] for name, values in plain["channels"].items()}
    positions = plain["positions"][tokens.start : tokens.stop]
    return told if positions == list(range(len(tokens))) else {"positions": positions, **told}


def _behind(plain: Mapping[str, Any]) -> Text:
    """What the decoder sees, and the targets that do not stand in the row itself."""
    text = Text()
    decoder = plain.get("decoder")
    sides = {False: plain["pieces"]}
    if decoder is not None:
        real = [p for p, one in zip(decoder["pieces"], decoder["sequence_ids"], strict=True) if one]
        text.append("  ── decoder", style="dim")
        text.append(f" {on_a_line(' '.join(real))}\n")
        sides[True] = decoder["pieces"]
    for name, own in plain.get("predictions", {}).items():
        if not own:
            continue
        text.append(f"  ── {name}", style="dim")
        for target in own:
            at = sides[bool(target["of_decoder"])][target["place"]]
            text.append(f" {on_a_line(at)}")
            text.append(f"→{on_a_line(str(target['label']))}", style="bold")
        text.append("\n")
    return text


def _token(piece: str, target: Mapping[str, Any] | None, segment: int) -> Text:
    if target is None:
        return Text(on_a_line(piece), style="blue" if segment else "")
    sign = "=" if target["fate"] == "kept" else "→"
    return Text(
        f"{{{on_a_line(target['truth'])} {sign} {on_a_line(target['shown'])}}}",
        style=f"bold {FATES[target['fate']]}",
    )
