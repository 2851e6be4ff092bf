"""Tokens of documents: one line a sentence, the pieces of a word held together.

1  the un·happy ⟨phrases: new york⟩ er
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

from rich.text import Text

from preprocessing.inspection.outputs import (
    Output,
    Selection,
    find_vocabulary,
    pieces,
    read_rows,
)
from preprocessing.inspection.terminal import on_a_line
from preprocessing.storage import InputError

MOST_TOKENS = 1000
_BASE = ("id", "ids", "word_starts", "sentence_lengths")
_COLOURS = ("cyan", "magenta", "green", "yellow")


def read_tokens(output: Output, selection: Selection) -> Iterator[dict[str, Any]]:
    """The selected documents as plain values.

    ``layers`` holds the spans of phrases, entities and the like as ``[start, length]`` in tokens.

    Raises:
        InputError: a row contradicts itself.
    """
    vocabulary = find_vocabulary(output)
    for row in read_rows(output, selection):
        values = row.values
        ids, lengths = values["ids"], values["sentence_lengths"]
        if sum(lengths) != len(ids) or len(values["word_starts"]) != len(ids):
            raise InputError(
                f"{output.directory / row.shard}: row {row.number} has {len(ids)} ids in "
                f"sentences of {sum(lengths)}; delete the shard and run tokenize again"
            )
        yield {
            "row": row.number,
            "shard": row.shard,
            "id": values["id"].hex(),
            "ids": ids,
            "pieces": pieces(vocabulary, ids),
            "word_starts": values["word_starts"],
            "sentence_lengths": lengths,
            "layers": {
                name: [[span["start"], span["length"]] for span in spans]
                for name, spans in values.items()
                if name not in _BASE and _is_layer(spans)
            },
        }


def _is_layer(spans: Any) -> bool:
    return isinstance(spans, list) and all(
        isinstance(span, dict) and {"start", "length"} <= set(span) for span in spans
    )


def render(plain: Mapping[str, Any]) -> Text:
    """A document for a terminal."""
    lengths: Sequence[int] = plain["sentence_lengths"]
    count = len(plain["ids"])
    words = sum(plain["word_starts"])
    text = Text.assemble((f"{plain['shard']} row {plain['row']:,}\n", "bold"))
    text.append(
        f"  id: {plain['id']}, {count:,} tokens, {words:,} words, {len(lengths):,} sentences"
        + "".join(f", {len(spans):,} {name}" for name, spans in plain["layers"].items())
        + "\n",
        style="dim",
    )
    opening: dict[int, list[tuple[str, str]]] = {}
    closing: dict[int, int] = {}
    inside: dict[int, str] = {}
    for (name, spans), colour in zip(plain["layers"].items(), _COLOURS * 9, strict=False):
        for start, length in spans:
            opening.setdefault(start, []).append((name, colour))
            closing[start + length] = closing.get(start + length, 0) + 1
            inside.update(dict.fromkeys(range(start, start + length), colour))
    starts = [0, *accumulate(lengths)]
    for number, (start, stop) in enumerate(pairwise(starts), 1):
        if start >= MOST_TOKENS:
            text.append(f"… {count - start:,} more tokens\n", style="dim")
            break
        text.append(f"{number:>4}  ", style="dim")
        last = min(stop, start + MOST_TOKENS)
        for place in range(start, last):
            if place > start:
                text.append("⟩" * closing.get(place, 0))
                text.append(" " if plain["word_starts"][place] else "·", style="dim")
            for name, colour in opening.get(place, ()):
                text.append(f"⟨{name}: ", style=colour)
            text.append(on_a_line(plain["pieces"][place]), style=inside.get(place, ""))
        text.append("⟩" * closing.get(last, 0))
        if last < stop:
            text.append(f" … {stop - last:,} more tokens in this sentence", style="dim")
        text.append("\n")
    return text
