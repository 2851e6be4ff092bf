"""The page of one run: verdict, curves, data, samples, and how to make it again.

Everything on it is read from files of the run and of its data; what has not been measured is said
to be so. ``report.html`` stands alone: no scripts, fonts or images from elsewhere.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.charts import Chart, Series, line_chart
from pipeline.evaluation.language_modeling import Evaluation, SetResult, read_evaluation
from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import (
    CHECKPOINTS,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoints,
    State,
    read_state,
)
from pipeline.training.tracking import read_metrics
from preprocessing.charts import number
from preprocessing.rows import TABLES
from preprocessing.storage import InputError, Manifest, write_text

REPORT_FILE = "report.html"
TEMPLATE = "report.html.j2"
NOT_MEASURED = "not measured"

LEAST_BELOW_UNIGRAM = 0.6
"""Nats by which a run that learned something beats the token frequencies."""
LEAST_BELOW_SHUFFLED = 0.4
"""Nats by which a run that learned order beats itself with shuffled context."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One sentence; ``passed`` is None where nothing has been measured."""

    text: str
    passed: bool | None


@dataclass(frozen=True)
class Event:
    """A line of the run's history."""

    steps: str
    what: str
    details: str


@dataclass(frozen=True)
class StageLine:
    """What one stage made of one split; a figure that the stage does not have is empty."""

    stage: str
    split: str
    documents: str = ""
    characters: str = ""
    tokens: str = ""
    sequences: str = ""
    rows: str = ""
    fill: str = ""
    left_out: str = ""


def write_report(run: Run) -> Path:
    """Write ``report.html`` into the run's directory.

    Returns:
        Its path.

    Raises:
        InputError: there is no run in ``output.directory``.
    """
    directory = run.output.directory
    records = read_metrics(directory)
    checkpoint = Checkpoints(directory / CHECKPOINTS).latest()
    if not records and checkpoint is None:
        raise InputError(
            f"{directory}: there is no run here to report on; train first, or give "
            "output.directory the place of a run"
        )
    state = read_state(checkpoint) if checkpoint else None
    evaluation = read_evaluation(directory)
    events = [record for record in records if record["kind"] == "event"]
    train = [record for record in records if record["kind"] == "train"]
    validation = [record for record in records if record["kind"] == "validation"]
    starts = [event for event in events if event["event"] in ("start", "resume")]
    environment = Environment(
        loader=PackageLoader("pipeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(
        name=Path(run.name).stem,
        family=run.model.family,
        num_parameters=_num_parameters(checkpoint),
        step=max((record["step"] for record in records), default=state.step if state else 0),
        total_steps=run.total_steps,
        verdict=verdict(evaluation),
        least_below_unigram=LEAST_BELOW_UNIGRAM,
        least_below_shuffled=LEAST_BELOW_SHUFFLED,
        evaluation=evaluation,
        outdated=bool(evaluation and state and evaluation.weights != state.weights),
        state=state,
        loss=loss_chart(train, validation, evaluation),
        charts=list(_small_charts(train, validation)),
        throughput=_throughput(train),
        events=history(events),
        stages=data_lines(run),
        export=_export(run),
        first=starts[0] if starts else None,
        start=starts[-1] if starts else None,
        command=command_line(starts[0]) if starts else None,
        config_file=checkpoint / CONFIG_FILE if checkpoint else None,
        digests=_digests(run, state),
        seed=run.seed,
        configuration=_configuration(run, checkpoint),
        not_measured=NOT_MEASURED,
        number=number,
    )
    write_text(directory / REPORT_FILE, page)
    return directory / REPORT_FILE


def verdict(evaluation: Evaluation | None) -> Verdict:
    """What the evaluation says in a sentence; of several sets the weakest speaks for the run."""
    if evaluation is None or not evaluation.sets:
        return Verdict(f"Held-out loss: {NOT_MEASURED} yet; evaluate the run to see it here.", None)

    def spare(result: SetResult) -> float:
        return min(
            result.below_unigram - LEAST_BELOW_UNIGRAM,
            result.below_shuffled - LEAST_BELOW_SHUFFLED,
        )

    weakest = min(evaluation.sets, key=spare)
    passed = all(spare(result) >= 0 for result in evaluation.sets)
    return Verdict(
        f"{'Passes' if passed else 'Fails'}: after {evaluation.step:,} steps the held-out loss on "
        f"“{weakest.name}” is {weakest.loss:.2f} nats, "
        f"{_margin(weakest.below_unigram)} the unigram baseline "
        f"(asked for: {LEAST_BELOW_UNIGRAM} below) and "
        f"{_margin(weakest.below_shuffled)} its own loss with shuffled context "
        f"(asked for: {LEAST_BELOW_SHUFFLED} below).",
        passed,
    )


def loss_chart(
    train: Sequence[Record], validation: Sequence[Record], evaluation: Evaluation | None
) -> Chart:
    """Masked-LM loss of training and of each validation set, above the baselines' levels.

    The levels are those of the first set; without an evaluation there are none.
    """
    sets = dict.fromkeys(record["set"] for record in validation)
    series = [
        _series("training", train, "masked_lm_loss"),
        *(
            _series(name, [r for r in validation if r["set"] == name], "masked_lm_loss")
            for name in sets
        ),
    ]
    first = evaluation.sets[0] if evaluation and evaluation.sets else None
    levels = [("uniform", first.uniform), ("unigram", first.unigram)] if first else []
    return line_chart("Masked-token loss, nats", series, levels)


def _small_charts(train: Sequence[Record], validation: Sequence[Record]) -> Iterator[Chart]:
    yield line_chart("Learning rate", [_series("learning rate", train, "learning_rate")])
    yield line_chart("Gradient norm", [_series("gradient norm", train, "gradient_norm")])
    sets = {
        name: [record for record in validation if record["set"] == name]
        for name in dict.fromkeys(record["set"] for record in validation)
    }
    suffix = "_accuracy"
    asked = dict.fromkeys(key for record in train for key in record if key.endswith(suffix))
    others = [
        *(
            line_chart(
                f"{key.removesuffix(suffix).replace('_', ' ').capitalize()}, share right",
                [
                    _series("training", train, key),
                    *(_series(name, own, key) for name, own in sets.items()),
                ],
            )
            for key in asked
            if key != "masked_lm_accuracy"
        ),
        line_chart(
            "Trust ratio, median of the tensors",
            [_series("median", train, "trust_ratio_median")],
        ),
    ]
    yield from (chart for chart in others if chart.curves)


def _series(name: str, records: Sequence[Record], key: str) -> Series:
    return Series(name, [(record["step"], record[key]) for record in records if key in record])


def history(events: Sequence[Record]) -> list[Event]:
    """Events in order; checkpoints that follow each other share a line."""
    lines: list[Event] = []
    saved: list[Record] = []
    for event in [*events, None]:
        if event is not None and event["event"] == "checkpoint":
            saved.append(event)
            continue
        if saved:
            first, last = saved[0]["step"], saved[-1]["step"]
            steps = f"{first:,}" if first == last else f"{first:,} – {last:,}"
            what = "checkpoint" if len(saved) == 1 else f"{len(saved)} checkpoints"
            lines.append(Event(steps, what, f"newest: {saved[-1].get('path', '')}"))
            saved = []
        if event is not None:
            lines.append(Event(f"{event['step']:,}", event["event"], _details(event)))
    return lines


def _details(event: Record) -> str:
    if event["event"] in ("start", "resume"):
        revision = event.get("revision") or "unknown"
        return f"{event['ranks']} × {event['device']}, {event['engine']}, revision {revision}"
    told = {key: value for key, value in event.items() if key not in ("kind", "step", "event")}
    if len(told) == 1 and isinstance(only := next(iter(told.values())), str):
        return only
    return ", ".join(f"{key} {value}" for key, value in told.items())


def data_lines(run: Run) -> list[StageLine]:
    """What became of the text, stage by stage, as the manifests tell it."""
    preparation = run.preparation
    names = dict.fromkeys(name for phase in run.phases for name in phase.sets)
    places = [
        ("ingest", preparation.documents_directory),
        *([("clean", preparation.filtered_directory)] if preparation.corpus.clean else []),
        ("deduplicate", preparation.clean_directory),
        ("tokenizer", preparation.tokenizer_directory),
        ("tokenize", preparation.tokens_directory),
        *((f"examples {name}", preparation.examples_directory(name)) for name in names),
    ]
    lines: list[StageLine] = []
    for stage, directory in places:
        try:
            manifest = Manifest.read(directory)
        except InputError:
            lines.append(StageLine(stage, NOT_MEASURED))
        else:
            lines += _stage_lines(stage, manifest)
    return lines


def _stage_lines(stage: str, manifest: Manifest) -> Iterator[StageLine]:
    left_out = ", ".join(
        f"{why.replace('_', ' ')}: {count:,}" for why, count in manifest.rejects.items()
    )
    if stage == "tokenizer":
        yield StageLine(stage, "all", tokens=f"{manifest.facts['vocab_size']:,} kinds")
        return
    for split in manifest.splits:
        if stage.startswith("examples ") and split == TABLES:
            continue
        totals = manifest.totals(split)
        counted = [key for key in ("characters", "tokens", "sequences") if key in totals]
        figures: dict[str, str] = {key: f"{totals[key]:,}" for key in counted}
        figures["rows" if "slots" in totals else "documents"] = f"{totals['rows']:,}"
        if "slots" in totals:
            figures["fill"] = f"{totals['tokens'] / max(1, totals['slots']):.1%}"
        yield StageLine(stage, split.replace("/copy-", ", copy "), **figures, left_out=left_out)
        left_out = ""  # counted for the stage, not for the split: said once


def _throughput(train: Sequence[Record]) -> dict[str, str]:
    """Medians over the logged steps."""
    figures = {}
    for key, what, form in (
        ("tokens_per_second", "tokens a second", ",.0f"),
        ("slots_per_second", "with padding", ",.0f"),
        ("mfu", "share of the devices' matrix products (MFU)", ".1%"),
        ("hfu", "with padding and what is computed again (HFU)", ".1%"),
    ):
        values = [record[key] for record in train if key in record]
        if values:
            figures[what] = f"{statistics.median(values):{form}}"
    return figures


def _num_parameters(checkpoint: Path | None) -> int | None:
    from safetensors import safe_open

    if checkpoint is None or not (checkpoint / WEIGHTS_FILE).exists():
        return None
    total = 0
    with safe_open(checkpoint / WEIGHTS_FILE, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118  (it is no mapping)
            size = 1
            for length in weights.get_slice(name).get_shape():
                size *= length
            total += size
    return total


def _export(run: Run) -> str | None:
    """Where the Hugging Face form stands and what it loads as; None where there is none."""
    directory = run.export.directory or run.output.directory / "export"
    try:
        fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return f"{directory}, loads as {fields['architectures'][0]}"
    except (OSError, ValueError, LookupError):
        return None


def command_line(start: Record) -> str:
    """The first start, as it was typed, without what the launcher adds."""
    words = [word for word in start["command"].split() if not word.startswith("--local_rank")]
    if words[:1] == ["train"]:
        return " ".join(["lexmill", *words])
    starter = "deepspeed" if start["engine"] == "deepspeed" else "python"
    return " ".join([starter, "pipeline/train.py", *words])


def _digests(run: Run, state: State | None) -> list[tuple[str, str]]:
    if state is None:
        return []
    return [
        *(
            (f"examples of phase {phase}: {', '.join(run.phases[int(phase)].sets)}", digest)
            for phase, digest in state.data.items()
            if int(phase) < len(run.phases)
        ),
        ("tokenizer", state.tokenizer),
        (f"weights after step {state.step}", state.weights),
    ]


def _configuration(run: Run, checkpoint: Path | None) -> str:
    """As the newest checkpoint holds it, or as it was given."""
    if checkpoint is not None and (checkpoint / CONFIG_FILE).exists():
        return (checkpoint / CONFIG_FILE).read_text(encoding="utf-8")
    return str(yaml.safe_dump(run.plain(), sort_keys=False, allow_unicode=True))


def _margin(nats: float) -> str:
    return f"{abs(nats):.2f} {'below' if round(nats, 2) >= 0 else 'above'}"
