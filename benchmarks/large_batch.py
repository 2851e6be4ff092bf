"""Held-out loss against batch size at equal tokens: LAMB beside AdamW, both by the same rule.

    LEXMILL_DATA=... python benchmarks/large_batch.py [--directory DIR] [--json]
    python benchmarks/large_batch.py --quick [--json]

A BERT-tiny reads the same rows once, in batches of 64, 128, ..., 4096. Each optimizer's peak rate
is looked for at the smallest batch; from there it grows with the root of the batch, and the share
of the warm-up with the batch, as in the LAMB paper (https://arxiv.org/abs/1904.00962, from 512 to
32k the same factor of 64). What the rule loses shows at the middle batch, where the best rate is
looked for again.

Trainings are processes of one thread, one after the other. Each is remembered in ``--directory``,
so that an interrupted measurement goes on where it was. The short form trains a few steps on the
documentation inside Python's own files, at given rates.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from measure import tell

BATCHES = tuple(64 * 2**doubling for doubling in range(7))
MIDDLE = BATCHES[3]
WARMUP_SHARE = 1 / 320  # of the steps, at the smallest batch; doubles with the batch
FIRST_GUESS = {"lamb": 8e-3, "adamw": 1e-3}  # peak rates at the smallest batch
TITLES = {"lamb": "LAMB", "adamw": "AdamW"}
VOCAB_SIZE = 4096
PLOT = Path(__file__).with_suffix(".svg")

RECIPE = """
seed: 1
corpus: {{directory: {root}/data, inputs: ['{text}'], form: {form}, workers: 1,
         validation: {{heldout: {{share: 0.03}}}}}}
tokenizer: {{kind: wordpiece, vocab_size: {vocab_size}}}
examples:
  rows: {{length: 32, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
model: {{family: bert, vocab_size: {vocab_size}, hidden_size: 128, num_layers: 2, num_heads: 2,
        intermediate_size: 512, max_positions: 32, dropout: 0.0, attention_dropout: 0.0,
        initializer_std: 0.05, next_sentence: false}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: lamb}}
schedule: {{kind: linear}}
phases: [{{examples: rows, steps: 1, batch_rows: 64, learning_rate: 1e-3}}]
train: {{engine: local, precision: bf16, micro_batch_rows: 64, evaluate_every: 1000000,
        save_every: 1000000, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: {heldout_rows}, micro_batch_rows: 64}}
output: {{directory: {root}/run}}
"""


@dataclass(frozen=True)
class Trial:
    """One training: all of them read the same number of rows."""

    optimizer: str
    batch: int
    rate: float


@dataclass(frozen=True)
class Result:
    """Where a trial ended: held-out masked-LM loss in nats, and the seconds it took."""

    loss: float
    seconds: float

    @property
    def diverged(self) -> bool:
        """No number, or worse than blind guesses among all pieces."""
        return not self.loss < math.log(VOCAB_SIZE)


class Measurement:
    """Trials on one recipe, each done once and remembered in a file of JSON lines."""

    def __init__(self, recipe: Path, rows: int) -> None:
        self._recipe = recipe
        self._rows = rows
        settings = f"{recipe.read_text()}{rows}{WARMUP_SHARE}"
        digest = hashlib.blake2b(settings.encode(), digest_size=4).hexdigest()
        self._path = recipe.with_name(f"results-{digest}.jsonl")
        self.results: dict[Trial, Result] = {}
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                entry = json.loads(line)
                self.results[Trial(**entry["trial"])] = Result(**entry["result"])

    def steps(self, batch: int) -> int:
        return self._rows // batch

    def loss(self, optimizer: str, batch: int, rate: float) -> float:
        """Held-out loss at the end, infinite where training diverged."""
        trial = Trial(optimizer, batch, _rounded(rate))
        if trial not in self.results:
            self.results[trial] = result = self._train(trial)
            with self._path.open("a") as file:
                file.write(json.dumps({"trial": asdict(trial), "result": asdict(result)}) + "\n")
            print(
                f"{trial.optimizer:<6} batch {trial.batch:<5} rate {trial.rate:<9g} "
                f"loss {result.loss:.3f} in {result.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        found = self.results[trial]
        return math.inf if found.diverged else found.loss

    def _train(self, trial: Trial) -> Result:
        begun = time.perf_counter()
        steps = self.steps(trial.batch)
        warmup = round(WARMUP_SHARE * trial.batch / BATCHES[0] * steps)
        overrides = [
            f"optimizer={{kind: {trial.optimizer}}}",
            f"schedule.warmup_steps={warmup}",
            f"phases=[{{examples: rows, steps: {steps}, batch_rows: {trial.batch}, "
            f"learning_rate: {trial.rate}}}]",
        ]
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            loss = process.submit(train, self._recipe, overrides).result()
        return Result(loss, time.perf_counter() - begun)


def train(recipe: Path, overrides: Sequence[str]) -> float:
    """One training in this process: the held-out loss at its end, NaN where it never got there."""
    import torch

    from configs.schema import load
    from pipeline.settings import decode_run
    from pipeline.training.agreement import TrainingStopped
    from pipeline.training.start import start_training
    from pipeline.training.tracking import read_metrics

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=recipe.parent) as output:
        run = decode_run(load(recipe, [*overrides, f"output.directory={output}/run"]))
        with contextlib.suppress(TrainingStopped):
            start_training(run)
        records = read_metrics(run.output.directory)
    losses = [record["loss"] for record in records if record["kind"] == "validation"]
    return float(losses[0]) if losses else math.nan


def prepare(root: Path, text: Path, *, form: str, heldout_rows: int | None) -> tuple[Path, float]:
    """Run the stages below ``root``; the recipe, and the loss of token frequencies alone."""
    from configs.schema import load
    from pipeline.evaluation.baselines import count_tokens, unigram_log_probabilities
    from pipeline.opening import open_data
    from pipeline.settings import decode_run
    from preprocessing.commands import run_preparation

    recipe = root / "recipe.yaml"
    recipe.write_text(
        RECIPE.format(
            root=root,
            text=text,
            form=form,
            vocab_size=VOCAB_SIZE,
            heldout_rows=json.dumps(heldout_rows),
        )
    )
    run = decode_run(load(recipe))
    for _ in run_preparation(run.preparation):
        pass
    data = open_data(run)
    heldout = data.validation["heldout"].open()
    num_rows = min(heldout.num_rows, heldout_rows or heldout.num_rows)
    _, labels = heldout.arrays(range(num_rows)).targets["masked_lm"]
    logarithms = unigram_log_probabilities(count_tokens(data.phases[0].sets[0].directory))
    return recipe, -float(logarithms[labels[labels >= 0]].mean())


def best_rate(loss: Callable[[float], float], start: float) -> float:
    """The rate of the least loss among doublings of ``start``, with a worse one on either side."""
    losses = {rate: loss(rate) for rate in (start / 2, start)}
    while True:
        best = min(losses, key=losses.__getitem__)
        if best == max(losses):
            losses[2 * best] = loss(2 * best)
        elif best == min(losses):
            losses[best / 2] = loss(best / 2)
        else:
            return best


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")


Curve: TypeAlias = dict[int, tuple[float, float]]
"""Batch -> peak rate, held-out loss."""


@dataclass(frozen=True)
class Findings:
    """Of one optimizer.

    Attributes:
        ruled: at the rate found at the smallest batch, grown with the root of the batch.
        searched: at the best rate looked for at that batch.
    """

    ruled: Curve
    searched: Curve


def measure(measurement: Measurement, name: str) -> Findings:
    """The full measurement of an optimizer."""

    def search(batch: int, start: float) -> tuple[float, float]:
        rate = best_rate(lambda rate: measurement.loss(name, batch, rate), start)
        return rate, measurement.loss(name, batch, rate)

    peak, _ = search(BATCHES[0], FIRST_GUESS[name])
    ruled = by_rule(measurement, name, peak, BATCHES)
    return Findings(ruled, {MIDDLE: search(MIDDLE, ruled[MIDDLE][0])})


def measure_quickly(measurement: Measurement, name: str) -> Findings:
    """Two batches at the guessed rates: that it works, not what it says."""
    return Findings(by_rule(measurement, name, FIRST_GUESS[name], BATCHES[:2]), {})


def by_rule(measurement: Measurement, name: str, peak: float, batches: Sequence[int]) -> Curve:
    """Losses at the peak rate of the smallest batch, grown with the root of the batch."""
    rates = {batch: _rounded(peak * math.sqrt(batch / BATCHES[0])) for batch in batches}
    return {batch: (rate, measurement.loss(name, batch, rate)) for batch, rate in rates.items()}


def table(measurement: Measurement, found: dict[str, Findings]) -> str:
    """Markdown: a line a batch, a pair of columns an optimizer; then every search of a rate."""
    heads = [f"{TITLES[name]}: rate | loss" for name in found]
    lines = ["| rate by | batch | steps | " + " | ".join(heads) + " |"]
    lines.append("|---" * (3 + 2 * len(found)) + "|")
    for title, form in (("rule", "ruled"), ("search", "searched")):
        curves = [getattr(findings, form) for findings in found.values()]
        for batch in curves[0]:
            cells = [f"{rate:.3g} | {_told(loss)}" for rate, loss in (c[batch] for c in curves)]
            lines.append(
                f"| {title} | {batch} | {measurement.steps(batch)} | " + " | ".join(cells) + " |"
            )
    lines.append("")
    for name in found:
        for batch in BATCHES:
            tried = sorted(
                (trial.rate, _told(measurement.loss(name, batch, trial.rate)))
                for trial in measurement.results
                if (trial.optimizer, trial.batch) == (name, batch)
            )
            if len(tried) > 1:
                told = ", ".join(f"{rate:.3g}: {loss}" for rate, loss in tried)
                lines.append(f"{TITLES[name]} at {batch}, loss by rate: {told}")
    return "\n".join(lines)


def summary(found: dict[str, Findings]) -> tuple[dict[str, float], dict[str, float]]:
    """Ratios by batch where neither diverged, and all losses."""
    ratios, figures = {}, {}
    for name, findings in found.items():
        for suffix, curve in (("", findings.ruled), ("_searched", findings.searched)):
            for batch, (_, loss) in curve.items():
                finite = math.isfinite(loss)
                kind = "loss" if finite else "diverged"
                figures[f"{kind}_{name}_{batch}{suffix}"] = loss if finite else 1.0
    for batch, (_, loss) in found["lamb"].ruled.items():
        ratio = loss / found["adamw"].ruled[batch][1]
        if 0 < ratio < math.inf:
            ratios[f"loss_cost_vs_adamw_{batch}"] = ratio
    return ratios, figures


def _told(loss: float) -> str:
    return f"{loss:.3f}" if math.isfinite(loss) else "diverged"


def plot(path: Path, found: dict[str, Findings], unigram: float) -> None:
    """Loss over batch size as an SVG; what diverged is left out."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lexmill"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for (name, findings), color in zip(found.items(), ("tab:blue", "tab:orange"), strict=True):
        for curve, style, label in (
            (findings.ruled, "o-", "rate by the rule"),
            (findings.searched, "*", "best rate"),
        ):
            losses = [loss if math.isfinite(loss) else math.nan for _, loss in curve.values()]
            axes.plot(list(curve), losses, style, color=color, label=f"{TITLES[name]}, {label}")
    axes.axhline(unigram, color="gray", linewidth=0.8, label="token frequencies alone")
    axes.set_xscale("log", base=2)
    axes.set_xticks(BATCHES, [str(batch) for batch in BATCHES])
    axes.set_xlabel("rows a batch, at equal tokens")
    axes.set_ylabel("held-out masked-LM loss")
    axes.legend(fontsize=7, frameon=False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two batches, few steps, rates given")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(tempfile.gettempdir()) / "lexmill-large-batch",
        help="where data and finished trainings are kept (default: %(default)s)",
    )
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.quick:
        from preprocessing.documentation import modules, write_corpus

        with tempfile.TemporaryDirectory() as root:
            text = Path(root) / "text.jsonl"
            write_corpus(text, modules(), 1)
            recipe, unigram = prepare(Path(root), text, form="jsonl", heldout_rows=512)
            measurement = Measurement(recipe, rows=32 * BATCHES[0])
            found = {name: measure_quickly(measurement, name) for name in FIRST_GUESS}
    else:
        if "LEXMILL_DATA" not in os.environ:
            parser.error("LEXMILL_DATA is not set; it names the folder that holds en_novels")
        text = Path(os.environ["LEXMILL_DATA"]) / "en_novels" / "novels_en.txt"
        options.directory.mkdir(parents=True, exist_ok=True)
        recipe, unigram = prepare(options.directory, text, form="text", heldout_rows=None)
        measurement = Measurement(recipe, rows=24 * BATCHES[-1])
        found = {name: measure(measurement, name) for name in FIRST_GUESS}
        plot(PLOT, found, unigram)
    print(table(measurement, found))
    ratios, figures = summary(found)
    tell(ratios, {"loss_unigram": unigram, **figures}, as_json=options.json)


if __name__ == "__main__":
    main()
