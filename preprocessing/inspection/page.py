"""The page of a corpus: lengths, rejects, languages and sources of every stage.

It stands alone: no scripts, fonts or images from elsewhere. Every figure has its numbers as a
table below it, for those who cannot see it or want to copy them. Equal data give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from preprocessing.charts import bar_chart, number
from preprocessing.inspection.statistics import NOT_KNOWN, Histogram, Statistics, Tally
from preprocessing.inspection.terminal import on_a_line
from preprocessing.space import format_bytes
from preprocessing.storage import Manifest, write_text

_MOST_NAMES = 15

_STYLE = """
:root { color-scheme: light dark;
  --page: #f7f6f3; --card: #fff; --ink: #20242b; --soft: #5f6672; --rule: #e3e1db;
  --back: #ecebe6; --bar: #1f5fd1; --lost: #b3541a; }
@media (prefers-color-scheme: dark) { :root {
  --page: #16181c; --card: #1e2126; --ink: #e4e6ea; --soft: #9aa1ac; --rule: #32363d;
  --back: #2a2d33; --bar: #6ea3ff; --lost: #eda05f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; }
h3, figcaption { font-size: 1rem; font-weight: 600; margin: 0 0 .75rem; }
figcaption small { font-weight: 400; }
p { margin: .4rem 0; }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.soft, small, dt, summary, th { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 1rem; margin: 0 0 1rem; min-width: 0; }
.pair { display: grid; gap: 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .9rem 1rem;
  margin: 0; }
dt { font-size: .85rem; }
dd { margin: 0; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.plot { position: relative; height: 12rem; margin: .5rem .5rem 1.6rem 3.6rem; font-size: .75rem;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.plot svg { width: 100%; height: 100%; overflow: visible; display: block; }
.plot .grid { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.plot .bars { fill: var(--bar); }
.plot span { position: absolute; white-space: nowrap; }
.plot .y { right: 100%; padding-right: .5rem; transform: translateY(-50%); }
.plot .x { top: 100%; padding-top: .3rem; transform: translateX(-50%); }
.bar { display: grid; grid-template-columns: minmax(4rem, 8rem) 1fr 8.5rem; gap: .6rem;
  align-items: center; font-size: .9rem; margin: .3rem 0; }
.bar span { overflow-wrap: anywhere; line-height: 1.3; }
.bar span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.bar i { background: var(--back); border-radius: 4px; height: .8rem; }
.bar b { display: block; height: 100%; border-radius: 4px; background: var(--bar); min-width: 2px; }
.lost b { background: var(--lost); }
details { margin-top: .5rem; font-size: .85rem; overflow-x: auto; }
summary { cursor: pointer; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .8rem .15rem 0; font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
""".strip()


def write_page(path: Path, title: str, stages: Sequence[Statistics]) -> None:
    """Write the page, whole or not at all."""
    write_text(path, page(title, stages))


def page(title: str, stages: Sequence[Statistics]) -> str:
    """The page as HTML."""
    name = _text(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: what the corpus holds</title>\n<style>\n{_STYLE}\n</style>\n</head>\n"
        f'<body>\n<main>\n<header>\n<h1>{name}</h1>\n<p class="soft">What each stage of the '
        "preparation made, all splits together, and what it left out.</p>\n</header>\n"
        + "".join(_stage(one) for one in stages if _tells_something(one))
        + "</main>\n</body>\n</html>\n"
    )


def _tells_something(statistics: Statistics) -> bool:
    manifest = statistics.output.manifest
    return bool(statistics.figures or (manifest and (manifest.rejects or _languages(manifest))))


def _languages(manifest: Manifest) -> Mapping[str, Mapping[str, float]]:
    """How well a vocabulary fits each language, where the stage measured it."""
    found = manifest.facts.get("languages")
    return found if isinstance(found, dict) else {}


def _stage(statistics: Statistics) -> str:
    output = statistics.output
    parts = [f"<section>\n<h2>{_text(output.name)}</h2>\n"]
    figures: list[tuple[str, str]] = [
        (what, f"{value:,}" if isinstance(value, int) else _share_or_number(what, value))
        for what, value in statistics.figures.items()
    ]
    if output.manifest is not None:
        if "vocab_size" in output.manifest.facts:
            figures.append(("tokens of the vocabulary", f"{output.manifest.facts['vocab_size']:,}"))
        figures.append(("on disk", format_bytes(output.manifest.totals()["bytes"])))
        if output.manifest.rejects:
            figures.append(("left out", f"{sum(output.manifest.rejects.values()):,}"))
    parts.append(
        '<div class="card">\n<dl>\n'
        + "".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>\n" for k, v in figures)
        + f'</dl>\n<p class="soft"><code>{_text(output.directory)}</code></p>\n</div>\n'
    )
    if output.manifest is not None and len(output.manifest.splits) > 1:
        parts.append(_splits(statistics))
    blocks = [_histogram(one) for one in statistics.histograms if one.num_values]
    if output.manifest is not None and output.manifest.rejects:
        ranked = sorted(output.manifest.rejects.items(), key=lambda item: (-item[1], item[0]))
        named = [(reason.replace("_", " "), count, "") for reason, count in ranked]
        blocks.append(_bars("Left out, by reason", named, lost=True))
    blocks += [
        _bars(f"Documents by {name}", _named(tally))
        for name, tally in statistics.tallies.items()
        if set(tally.counts) - {NOT_KNOWN}
    ]
    if output.manifest is not None and (languages := _languages(output.manifest)):
        measured = list(dict.fromkeys(what for one in languages.values() for what in one))
        rows = [
            [language, *(number(own[what]) if what in own else "" for what in measured)]
            for language, own in sorted(languages.items())
        ]
        body = _table(["language", *(what.replace("_", " ") for what in measured)], rows)
        parts.append(f'<div class="card" style="overflow-x:auto">{body}</div>\n')
    if blocks:
        parts.append('<div class="pair">\n' + "".join(blocks) + "</div>\n")
    return "".join(parts) + "</section>\n"


def _splits(statistics: Statistics) -> str:
    manifest = statistics.output.manifest
    assert manifest is not None
    totals = {split: manifest.totals(split) for split in manifest.splits}
    names = list(dict.fromkeys(name for counts in totals.values() for name in counts))
    rows = [
        [split.replace("/copy-", ", copy "), *(f"{counts.get(name, 0):,}" for name in names)]
        for split, counts in totals.items()
    ]
    body = _table(["split", *(name.replace("_", " ") for name in names)], rows)
    return f'<div class="card" style="overflow-x:auto">{body}</div>\n'


def _share_or_number(what: str, value: float) -> str:
    return f"{value:.1%}" if what in ("fill", "random partners") else number(value)


def _histogram(histogram: Histogram) -> str:
    plain = histogram.plain()
    bins = plain["bins"]
    chart = bar_chart(
        [*(number(low) for low, _, _ in bins), number(bins[-1][1])], [count for _, _, count in bins]
    )
    title = histogram.title[0].upper() + histogram.title[1:]
    low, high, count = max(bins, key=lambda one: one[2])
    facts = f"from {plain['least']:,} to {plain['most']:,}, {number(plain['mean'])} on average"
    spoken = (
        f"Histogram of {histogram.title}: {facts}; the fullest bin, {_range(low, high)}, "
        f"holds {count:,} of {plain['values']:,}."
    )
    grid = "".join(f'<path class="grid" d="M0 {tick.at}H100"/>' for tick in chart.y_ticks)
    ys = "".join(f'<span class="y" style="top:{t.at}%">{t.label}</span>' for t in chart.y_ticks)
    xs = "".join(f'<span class="x" style="left:{t.at}%">{t.label}</span>' for t in chart.x_ticks)
    rows = [[_range(low, high), f"{count:,}"] for low, high, count in bins]
    return (
        f'<figure class="card" style="margin:0 0 1rem"><figcaption>{_text(title)} '
        f'<small>{facts}</small></figcaption>\n<div class="plot">\n'
        '<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{_text(spoken)}">{grid}<path class="bars" d="{chart.path}"/></svg>\n'
        f'<div aria-hidden="true">{ys}{xs}</div>\n</div>\n'
        f"<details><summary>in numbers</summary>{_table([histogram.title, 'count'], rows)}"
        "</details></figure>\n"
    )


def _range(low: int, high: int) -> str:
    return f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"


def _named(tally: Tally) -> list[tuple[str, int, str]]:
    ranked = tally.ranked()
    rows = [
        (name, documents, f"{characters:,} characters") for name, documents, characters in ranked
    ]
    if len(rows) > _MOST_NAMES:
        rest = ranked[_MOST_NAMES:]
        rows = rows[:_MOST_NAMES]
        rows.append(
            (
                f"{len(rest):,} others",
                sum(documents for _, documents, _ in rest),
                f"{sum(characters for _, _, characters in rest):,} characters",
            )
        )
    return rows


def _bars(title: str, rows: Sequence[tuple[str, int, str]], *, lost: bool = False) -> str:
    highest = max(count for _, count, _ in rows)
    total = sum(count for _, count, _ in rows)
    lines = "".join(
        f'<div class="bar"><span>{_text(name)}</span>'
        f'<i aria-hidden="true"><b style="width:{100 * count / max(1, highest):.2f}%"></b></i>'
        f"<span>{count:,} <small>{count / max(1, total):.1%}"
        + (f"<br>{_text(more)}" if more else "")
        + "</small></span></div>\n"
        for name, count, more in rows
    )
    return f'<div class="card{" lost" if lost else ""}"><h3>{_text(title)}</h3>\n{lines}</div>\n'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>\n" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _text(value: object) -> str:
    return escape(on_a_line(value))
