"""Figures of all rows of an output: its shards are streamed once, histograms have fixed bins.

Memory does not grow with the corpus: a histogram is a few dozen counts, and a table of names
stops taking new ones at :data:`MOST_NAMES`; what comes later counts as ``(others)``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from preprocessing.inspection.outputs import Batches, Output, kind_of

MOST_NAMES = 10_000
OTHERS = "(others)"
NOT_KNOWN = "(not known)"
_DOUBLINGS = 40
_LINEAR_BINS = 32


class Histogram:
    """Counts of integers in fixed bins ``[borders[i], borders[i + 1])``.

    Attributes:
        title: what is counted, as ``characters a document``.
        borders: int64 ``[bins + 1]``; the first bin also takes what is less, the last what is more.
        counts: int64 ``[bins]``.
    """

    def __init__(self, title: str, borders: Sequence[int]) -> None:
        self.title = title
        self.borders = np.asarray(borders, dtype=np.int64)
        self.counts = np.zeros(len(borders) - 1, dtype=np.int64)
        self.num_values = self.sum = 0
        self.least: int | None = None
        self.most: int | None = None

    @staticmethod
    def doubling(title: str) -> Histogram:
        """Bins 0, 1, 2-3, 4-7, ... for what may be of any size."""
        return Histogram(title, [0, *(2**power for power in range(_DOUBLINGS))])

    @staticmethod
    def linear(title: str, highest: int) -> Histogram:
        """Equal bins from 0 to ``highest``, which the last one holds."""
        width = -(-(highest + 1) // _LINEAR_BINS)
        return Histogram(title, range(0, highest + width + 1, width))

    def add(self, values: NDArray[np.integer[Any]]) -> None:
        """Count some values ``[n]``."""
        if not len(values):
            return
        inside = np.clip(
            np.searchsorted(self.borders, values, side="right") - 1, 0, len(self.counts) - 1
        )
        self.counts += np.bincount(inside, minlength=len(self.counts))
        self.num_values += len(values)
        self.sum += int(values.sum(dtype=np.int64))
        least, most = int(values.min()), int(values.max())
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)

    def occupied(self) -> slice:
        """The bins from the first to the last one with something in it."""
        used = np.flatnonzero(self.counts)
        return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)

    def plain(self) -> dict[str, Any]:
        """As JSON: the occupied bins ``[low, high, count]`` with ``low <= value < high``."""
        used = self.occupied()
        lows, highs = self.borders[:-1][used], self.borders[1:][used]
        return {
            "values": self.num_values,
            "mean": self.sum / self.num_values if self.num_values else None,
            "least": self.least,
            "most": self.most,
            "bins": [
                [int(low), int(high), int(count)]
                for low, high, count in zip(lows, highs, self.counts[used], strict=True)
            ],
        }


class Tally:
    """Documents and characters by name; the number of names is bounded."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    def add(self, name: str, documents: int, characters: int) -> None:
        """Count some documents of one name."""
        if name not in self.counts and len(self.counts) >= MOST_NAMES:
            name = OTHERS
        before = self.counts.get(name, (0, 0))
        self.counts[name] = (before[0] + documents, before[1] + characters)

    def ranked(self) -> list[tuple[str, int, int]]:
        """``(name, documents, characters)``, most documents first."""
        rows = [(name, *counts) for name, counts in self.counts.items()]
        return sorted(rows, key=lambda row: (-row[1], row[0]))


@dataclass
class Statistics:
    """The figures of one output.

    Attributes:
        output: whose.
        figures: single numbers by what they are.
        histograms: of lengths.
        tallies: documents and characters by language, licence and source.
    """

    output: Output
    figures: dict[str, float] = field(default_factory=dict)
    histograms: list[Histogram] = field(default_factory=list)
    tallies: dict[str, Tally] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        manifest = self.output.manifest
        return {
            "name": self.output.name,
            "directory": str(self.output.directory),
            "figures": self.figures,
            "rejects": dict(manifest.rejects) if manifest else {},
            "histograms": {one.title: one.plain() for one in self.histograms},
            "tallies": {
                name: [
                    {"name": who, "documents": documents, "characters": characters}
                    for who, documents, characters in tally.ranked()
                ]
                for name, tally in self.tallies.items()
            },
        }


def gather(output: Output) -> Statistics:
    """Stream all shards of an output, every split of it, once.

    Raises:
        InputError: a missing or damaged shard.
    """
    statistics = Statistics(output)
    if not output.shards or not output.shards[0].name.endswith(".arrow"):
        return statistics
    match output.kind:
        case "documents":
            _gather_documents(statistics, _batches(output))
        case "tokens":
            _gather_tokens(statistics, _batches(output))
        case "examples":
            _gather_examples(statistics, _batches(output))
        case "other":
            pass
    return statistics


def _batches(output: Output) -> Iterable[pa.RecordBatch]:
    kind = output.kind
    for path in output.paths():
        shard = Batches(path)
        if kind_of(shard.schema) == kind:
            yield from shard


def _gather_documents(statistics: Statistics, batches: Iterable[pa.RecordBatch]) -> None:
    lengths = Histogram.doubling("characters a document")
    statistics.tallies = {name: Tally() for name in ("language", "licence", "source")}
    for batch in batches:
        characters = pc.utf8_length(batch.column("text"))
        lengths.add(characters.to_numpy(zero_copy_only=False))
        for name, tally in statistics.tallies.items():
            names = batch.column(name)
            if name == "source":  # files are too many: their folder, or the name of their source
                names = pc.replace_substring_regex(names, "/.*", "")
            grouped = (
                pa.table({"name": names, "characters": characters})
                .group_by("name")
                .aggregate([("characters", "count"), ("characters", "sum")])
                .sort_by("name")
                .to_pylist()
            )
            for row in grouped:
                who = NOT_KNOWN if row["name"] is None else row["name"]
                tally.add(who, row["characters_count"], row["characters_sum"])
    statistics.histograms = [lengths]
    statistics.figures = {"documents": lengths.num_values, "characters": lengths.sum}


def _gather_tokens(statistics: Statistics, batches: Iterable[pa.RecordBatch]) -> None:
    documents = Histogram.doubling("tokens a document")
    sentences = Histogram.doubling("tokens a sentence")
    words = 0
    spans: dict[str, int] = {}
    for batch in batches:
        documents.add(np.diff(np.asarray(batch.column("ids").offsets)))
        sentences.add(batch.column("sentence_lengths").flatten().to_numpy(zero_copy_only=False))
        words += pc.sum(batch.column("word_starts").flatten()).as_py() or 0
        for name in ("phrases", "entities"):
            if name in batch.schema.names:
                spans[name] = spans.get(name, 0) + len(batch.column(name).flatten())
    statistics.histograms = [documents, sentences]
    statistics.figures = {
        "documents": documents.num_values,
        "sentences": sentences.num_values,
        "words": words,
        "tokens": documents.sum,
        "tokens a word": documents.sum / max(1, words),
        **spans,
    }


_MOST_CLASSES = 128  # labels are signed bytes


def _gather_examples(statistics: Statistics, batches: Iterable[pa.RecordBatch]) -> None:
    manifest = statistics.output.manifest
    length = 0 if manifest is None else int(manifest.facts["length"])
    sequences: Histogram | None = None
    filled: Histogram | None = None
    a_row = Histogram.doubling("sequences a row")
    labels = np.zeros(_MOST_CLASSES, dtype=np.int64)
    for batch in batches:
        length = length or int(batch.schema.field("ids").type.list_size)
        sequences = sequences or Histogram.linear("tokens a sequence", length)
        filled = filled or Histogram.linear("real tokens a row", length)
        offsets = np.asarray(batch.column("lengths").offsets)
        lengths = batch.column("lengths").values.to_numpy(zero_copy_only=False).astype(np.int64)
        sequences.add(lengths[offsets[0] : offsets[-1]])
        a_row.add(np.diff(offsets))
        sums = np.concatenate([[0], np.cumsum(lengths)])
        filled.add(sums[offsets[1:]] - sums[offsets[:-1]])
        own = batch.column("labels").flatten().to_numpy(zero_copy_only=False)
        labels += np.bincount(own[own >= 0], minlength=_MOST_CLASSES)
    if sequences is None or filled is None:
        return
    statistics.histograms = [sequences, filled, a_row]
    statistics.figures = {
        "rows": filled.num_values,
        "sequences": sequences.num_values,
        "tokens": filled.sum,
        "fill": filled.sum / max(1, filled.num_values * length),
    }
    asked = "next_sentence" if manifest is None else manifest.facts.get("label", "next_sentence")
    if asked == "next_sentence" and labels.any():
        statistics.figures["random partners"] = int(labels[1]) / int(labels.sum())
    elif labels.any():
        shares = labels / labels.sum()
        statistics.figures |= {
            f"{asked} {one}": shares[one].item() for one in np.flatnonzero(labels)
        }
