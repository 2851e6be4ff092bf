import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from corpora import shard_rows
from hypothesis import given
from hypothesis import strategies as st
from inspected import EVIL

from configs.schema import load
from preprocessing.charts import bar_chart
from preprocessing.console import main
from preprocessing.inspection import statistics
from preprocessing.inspection.outputs import named
from preprocessing.inspection.page import page
from preprocessing.inspection.statistics import OTHERS, Histogram, Tally, gather
from preprocessing.settings import decode_preparation


def test_values_fall_into_their_bins() -> None:
    histogram = Histogram.doubling("x")
    histogram.add(np.array([0, 1, 1, 3, 4, 7, 8]))
    assert histogram.plain() == {
        "values": 7,
        "mean": 24 / 7,
        "least": 0,
        "most": 8,
        "bins": [[0, 1, 1], [1, 2, 2], [2, 4, 1], [4, 8, 2], [8, 16, 1]],
    }
    linear = Histogram.linear("x", 64)
    linear.add(np.array([0, 2, 3, 64]))
    assert linear.plain()["bins"][0] == [0, 3, 2]
    assert linear.plain()["bins"][-1] == [63, 66, 1]


@given(st.lists(st.lists(st.integers(0, 2**45), max_size=9), max_size=5))
def test_histograms_do_not_depend_on_the_batches(batches: list[list[int]]) -> None:
    parts, whole = Histogram.doubling("x"), Histogram.doubling("x")
    for batch in batches:
        parts.add(np.array(batch, dtype=np.int64))
    values = [value for batch in batches for value in batch]
    whole.add(np.array(values, dtype=np.int64))
    assert parts.plain() == whole.plain()
    assert sum(count for _, _, count in whole.plain()["bins"]) == len(values)


def test_a_tally_stops_taking_new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_NAMES", 2)
    tally = Tally()
    for name in "abcab":
        tally.add(name, 1, 10)
    assert tally.ranked() == [("a", 2, 20), ("b", 2, 20), (OTHERS, 1, 10)]


def test_figures_are_those_of_the_rows(prepared: Path) -> None:
    corpus = decode_preparation(load(prepared))
    texts = [
        row["text"]
        for split in ("train", "heldout")
        for row in shard_rows(corpus.clean_directory, split)
    ]
    documents = gather(named(str(prepared), "deduplicate", [])[0]).plain()
    lengths = documents["histograms"]["characters a document"]
    assert lengths["values"] == len(texts) == documents["figures"]["documents"]
    assert lengths["mean"] == pytest.approx(np.mean([len(text) for text in texts]))
    assert lengths["most"] == max(map(len, texts))
    sources = {row["name"]: row["documents"] for row in documents["tallies"]["source"]}
    assert sources == {"a.txt": len(texts) - 1, "evil.txt": 1}

    rows = shard_rows(corpus.tokens_directory, "train") + shard_rows(
        corpus.tokens_directory, "heldout"
    )
    tokens = gather(named(str(prepared), "tokenize", [])[0])
    assert tokens.figures["tokens"] == sum(len(row["ids"]) for row in rows)
    assert tokens.figures["words"] == sum(sum(row["word_starts"]) for row in rows)
    assert tokens.figures["sentences"] == sum(len(row["sentence_lengths"]) for row in rows)

    examples = gather(named(str(prepared), "pairs", [])[0])
    assert examples.output.manifest is not None
    totals = examples.output.manifest.totals()
    assert examples.figures["rows"] == totals["rows"]
    assert examples.figures["fill"] == totals["tokens"] / totals["slots"]
    assert examples.figures["random partners"] == totals["label_1"] / totals["sequences"]
    sequences, filled, a_row = examples.histograms
    assert sequences.num_values == a_row.sum == totals["sequences"]
    assert filled.sum == sequences.sum == totals["tokens"]


class Page(HTMLParser):
    """Tags that are open, texts, and everything that would be fetched."""

    void = ("meta", "br", "path", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_can_be_read_aloud(
    prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / "page.html"
    assert main(["inspect", str(prepared), "--html", str(target), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["html"] == str(target)
    assert result["statistics"][0]["name"] == "ingest"
    raw = target.read_text()
    shown = Page(raw)
    assert shown.open == []
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "link", "img", "iframe"}
    assert not any({"src", "href", "onclick"} & set(attributes) for _, attributes in shown.tags)
    assert "url(" not in raw
    assert "prefers-color-scheme: dark" in raw
    charts = [attributes for tag, attributes in shown.tags if tag == "svg"]
    assert len(charts) == 2 + 2 + 3 + 3
    for attributes in charts:
        assert attributes["role"] == "img"
        assert "on average" in (attributes["aria-label"] or "")
    assert "invalid bytes" in shown.text
    first = target.read_bytes()
    assert main(["inspect", str(prepared), "--html", str(target)]) == 0
    assert target.read_bytes() == first


def test_names_from_the_corpus_are_escaped(prepared: Path) -> None:
    gathered = gather(named(str(prepared), "ingest", [])[0])
    gathered.tallies["source"].add(EVIL, 1, 1)
    text = page("<b>&", [gathered])
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert not set("\x1b\x9b\u202e") & set(text)
    assert "<h1>&lt;b&gt;&amp;</h1>" in text


def test_bars_stand_where_their_counts_are() -> None:
    chart = bar_chart(["0", "1", "2"], [4, 2])
    assert chart.path == "M3.00 100V0.00h44.00V100zM53.00 100V50.00h44.00V100z"
    assert [(tick.at, tick.label) for tick in chart.x_ticks] == [(0, "0"), (50, "1"), (100, "2")]
    assert [(tick.at, tick.label) for tick in chart.y_ticks] == [
        (100, "0"), (75, "1"), (50, "2"), (25, "3"), (0, "4"),
    ]  # fmt: skip
    assert len(bar_chart([str(i) for i in range(33)], [1] * 32).x_ticks) <= 9
