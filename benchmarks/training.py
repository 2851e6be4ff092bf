"""One training step, ours beside transformers' model of the same size on the same text.

    python benchmarks/training.py [--quick] [--json] [--sizes mini,small] [--lengths 128,512]

Reads ``en_novels`` below LEXMILL_DATA (a folder of ``*.txt`` files: a paragraph a line, blank lines
between documents), or the documentation of this Python where that is not set. A step is forward and
backward pass, clipping to 1, AdamW, and clearing the gradients; micro-batches, eight in turn, lie
ready on the device. fp32 with all cores on CPUs, bf16 by autocast on GPUs. Both sides have equal
shapes, equal dropout (none unless asked for), and micro-batches of as many tokens; a vocabulary of
30,522. Speeds are tokens a second that are no padding.

Ours, each rung adding one thing to the one before:

- padded: lines of the text, one sequence a row, scores at all places, AdamW as torch has it by
  default;
- targets: scores at the targets alone, product and loss in one, chunk by chunk;
- packed: several sequences a row, attention within each;
- compiled: blocks as compiled code (on GPUs, or with ``--compile``);
- fused: AdamW as one kernel. This is what a recipe trains with;
- documents: the same, sequences cut from whole documents instead of lines.

Theirs is ``BertForMaskedLM`` with SDPA and fused AdamW, fed in the ways of their ``run_mlm``:

- packed: the text joined and cut into full rows, without attention mask. Stands against
  ``documents``, whose rows are as full, and against ``fused``;
- by line: a line a row, each micro-batch padded to its longest. Stands against ``fused``.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from measure import alternate, tell
from peers import Corpus, Peer

from configs.schema import load
from pipeline.batch import IGNORED, Batch, Targets
from pipeline.data import MicroBatch, RowSource, to_batch
from pipeline.nn.scores import Scores, logits
from pipeline.objectives.base import Loss, Objective, classification_loss
from pipeline.objectives.masked_lm import MaskedLM, MaskedLMConfig
from pipeline.optim import build_optimizer
from pipeline.optim.adamw import AdamWConfig
from pipeline.precision import dtype
from pipeline.settings import Run, decode_run
from pipeline.training.engine import Engine
from pipeline.training.feeding import feed
from pipeline.training.start import build_engine
from preprocessing.commands import run_preparation
from preprocessing.documentation import documents, modules

VOCABULARY = 30522
BATCHES = 8
RATE = 1e-4
SIZES = {  # layers, width, heads
    "mini": (4, 256, 4),
    "small": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
RECIPE = """
seed: 1
corpus: {{directory: {root}/{form}, inputs: [{root}/text.txt], form: {form}, workers: 2}}
tokenizer: {tokenizer}
examples: {examples}
model: {{family: bert, vocab_size: {vocabulary}, num_layers: {layers}, hidden_size: {width},
         num_heads: {heads}, intermediate_size: {intermediate}, dropout: {dropout},
         attention_dropout: {dropout}, next_sentence: false}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: adamw}}
schedule: {{kind: constant, warmup_steps: 1}}
phases: [{{examples: packed-{first}, steps: 2, batch_rows: 8, learning_rate: 1e-4}}]
train: {{engine: local, micro_batch_rows: 8, precision: {precision}, compile: {compile}}}
tracking: {{mode: disabled}}
output: {{directory: {root}/run}}
"""
EXAMPLES = """
  padded-{length}: {{length: {length}, layout: {{kind: blocks}}, corruption: {{kind: masked}}}}
  packed-{length}: {{length: {length}, layout: {{kind: blocks}}, corruption: {{kind: masked}},
                     pack: true}}"""


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the first size and length, 3 rounds")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--sizes", default="base,large" if gpu else "mini,small")
    parser.add_argument("--lengths", default="128,512")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=65536 if gpu else 4096, help="a micro-batch")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=gpu,
        help="compiled blocks, too; left out, on GPUs",
    )
    options = parser.parse_args()
    sizes, lengths = options.sizes.split(","), [int(one) for one in options.lengths.split(",")]
    if unknown := [size for size in sizes if size not in SIZES]:
        parser.error(f"no size {', '.join(unknown)}; there are {', '.join(SIZES)}")
    if max(lengths) > 512:
        parser.error("these models have 512 positions; give shorter lengths")
    if options.quick:
        sizes, lengths, options.rounds = sizes[:1], lengths[:1], 3
        options.tokens //= 2
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_text(root, megabytes=1.5 if options.quick and not gpu else 6)
        recipes = Recipes(root, lengths, options.dropout, options.compile)
        recipes.prepare()
        for size, length in itertools.product(sizes, lengths):
            work = rungs(recipes, size, length, options.tokens) | peers(
                recipes, size, length, options.tokens
            )
            speeds, every = alternate(work, rounds=options.rounds)
            where = f"{length}" if size == sizes[0] else f"{length}_{size}"
            for name, speed in speeds.items():
                figures[f"tokens_per_second_{name}_{where}"] = speed
                figures[f"spread_{name}_{where}"] = max(every[name]) / min(every[name])
            compare(speeds, where, ratios)
    tell(ratios, figures, as_json=options.json)


def compare(speeds: Mapping[str, float], where: str, ratios: dict[str, float]) -> None:
    """Ours over theirs."""
    padded = "step_vs_transformers_padded" + (f"_{where}" if ratios else "")
    ratios[f"step_vs_transformers_packed_{where}"] = speeds["documents"] / speeds["theirs_packed"]
    ratios[f"lines_vs_transformers_packed_{where}"] = speeds["fused"] / speeds["theirs_packed"]
    ratios[padded] = speeds["fused"] / speeds["theirs_by_line"]


def write_text(root: Path, megabytes: float) -> None:
    """``text.txt`` in the form of ``en_novels``."""
    if "LEXMILL_DATA" in os.environ:
        source = Path(os.environ["LEXMILL_DATA"]) / "en_novels"
        paths = [path for path in sorted(source.glob("*.txt")) if path.name != "SOURCE.txt"]
        if not paths:
            sys.exit(f"{source}: no text files; LEXMILL_DATA names a folder that has some there")
        text = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in paths)
        text = text[: int(megabytes * 1e6)]
    else:
        print("LEXMILL_DATA is not set: this is the text of documentation", file=sys.stderr)
        texts = (text for _, _, text in documents(modules(), int(megabytes * 1e6)))
        lines = ([line for line in text.splitlines() if line.strip()] for text in texts)
        text = "\n\n".join("\n".join(own) for own in lines)
    (root / "text.txt").write_text(text + "\n", encoding="utf-8")


class AllScores(MaskedLM):
    """Masked language modelling as most do it: from a tensor of all scores."""

    def __call__(self, outputs: Mapping[str, Scores], batch: Batch) -> Loss:
        """The loss of a micro-batch."""
        return classification_loss(logits(outputs["masked_lm"]), batch.targets["masked_lm"].labels)


def everywhere(batch: Batch) -> Batch:
    """The batch with a target at each place, most of which do not count."""
    own = batch.targets["masked_lm"]
    real = own.labels != IGNORED
    labels = torch.full_like(batch.ids, IGNORED).flatten().to(own.labels.dtype)
    labels[own.indices[real]] = own.labels[real]
    indices = torch.arange(len(labels), device=labels.device)
    return replace(batch, targets={"masked_lm": Targets(indices, labels)})


class Recipes:
    """Recipes over one text: whole documents, or each line on its own.

    Args:
        compile: whether blocks are compiled, too.
    """

    def __init__(self, root: Path, lengths: list[int], dropout: float, compile: bool) -> None:
        self.root, self.dropout, self.compile = root, dropout, compile
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._examples = "".join(EXAMPLES.format(length=length) for length in lengths)
        self._lengths = lengths
        self.tokenizer = root / "wordpiece" / "tokenizer.json"

    def run(self, form: str, size: str = "mini", *, compiled: bool = False) -> Run:
        layers, width, heads = SIZES[size]
        trained = f"{{kind: wordpiece, vocab_size: {VOCABULARY}}}"
        taken = f"{{kind: existing, name: wordpiece, path: {self.tokenizer}}}"
        path = self.root / f"{form}.yaml"
        path.write_text(
            RECIPE.format(
                root=self.root,
                form=form,
                tokenizer=trained if form == "text" else taken,
                examples=self._examples,
                first=self._lengths[0],
                vocabulary=VOCABULARY,
                layers=layers,
                width=width,
                heads=heads,
                intermediate=4 * width,
                dropout=self.dropout,
                precision="bf16" if self.device.type == "cuda" else "fp32",
                compile=str(compiled).lower(),
            )
        )
        return decode_run(load(path))

    def prepare(self) -> None:
        """Run the stages of both; the vocabulary is that of the documents."""
        documents = self.run("text").preparation
        self.tokenizer.parent.symlink_to(documents.tokenizer_directory)
        for preparation in (documents, self.run("lines").preparation):
            for _ in run_preparation(preparation):
                pass


# -- ours ------------------------------------------------------------------------------------------


def rungs(recipes: Recipes, size: str, length: int, tokens: int) -> dict[str, Callable[[], int]]:
    """A step of each rung, to be called again and again; it returns the real tokens."""
    eager = build_engine(recipes.run("lines", size))
    padded, packed, whole = (
        ready(recipes, form, f"{kind}-{length}", tokens // length, eager)
        for form, kind in (("lines", "padded"), ("lines", "packed"), ("text", "packed"))
    )
    config = MaskedLMConfig(kind="masked_lm")
    at_targets = MaskedLM(config)
    work = {
        "padded": stepping(eager, map(everywhere, padded), AllScores(config)),
        "targets": stepping(eager, padded, at_targets),
        "packed": stepping(eager, packed, at_targets),
    }
    last = eager
    if recipes.compile:
        last = build_engine(recipes.run("lines", size, compiled=True))
        work["compiled"] = stepping(last, packed, at_targets)
    work["fused"] = stepping(last, packed, at_targets, fused=True)
    work["documents"] = stepping(last, whole, at_targets, fused=True)
    return work


def ready(recipes: Recipes, form: str, name: str, rows: int, engine: Engine) -> list[Batch]:
    """Micro-batches of a set on the device, with what the trainer finds out beforehand."""
    run = recipes.run(form)
    preparation = run.preparation
    corruption = preparation.examples[name].corruption
    opened = RowSource(
        preparation.examples_directory(name), "train", corruption, preparation.seed, 0
    ).open()
    steps = [
        [MicroBatch(to_batch(opened.arrays(range(start, start + rows))), 0, 0)]
        for start in range(0, BATCHES * rows, rows)
    ]
    path = engine.task.model.attention_path(engine.device, dtype(run.train.precision))
    fed = feed(steps, engine.device, engine.task.objective_names, varlen=path.name == "varlen")
    return [one.batches[0].batch for one in fed]


def stepping(
    engine: Engine, batches: Iterable[Batch], objective: Objective, *, fused: bool = False
) -> Callable[[], int]:
    """Training steps on batches in turn; all rungs of an engine share its weights."""
    # Each form has moments and counts of its own: they lie where its kernels want them.
    optimizer = build_optimizer(AdamWConfig(kind="adamw"), engine.task.model)
    for group in optimizer.param_groups:  # not fused: for-loops on CPUs and "foreach" on GPUs
        group["fused"], group["foreach"] = fused, engine.device.type == "cuda" and not fused
    turns = itertools.cycle(
        [
            (
                batch,
                (batch.targets["masked_lm"].labels >= 0).sum().float().unsqueeze(0),
                int((batch.sequence_ids > 0).sum()),
            )
            for batch in batches
        ]
    )

    def step() -> int:
        engine.task.objectives["masked_lm"] = objective
        engine.optimizer = optimizer
        batch, count, real = next(turns)
        engine.backward(batch, count)
        engine.step(RATE)
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        return real

    return step


# -- theirs ----------------------------------------------------------------------------------------


def peers(recipes: Recipes, size: str, length: int, tokens: int) -> dict[str, Callable[[], int]]:
    """A step of theirs, to be called again and again; it returns the real tokens."""
    layers, width, heads = SIZES[size]
    peer = Peer(
        transformers.BertForMaskedLM,
        transformers.BertConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            hidden_dropout_prob=recipes.dropout,
            attention_probs_dropout_prob=recipes.dropout,
        ),
        recipes.device,
        RATE,
    )
    corpus = Corpus(recipes.root / "text.txt", recipes.tokenizer)
    ways = {
        "theirs_packed": corpus.packed(tokens // length, length),
        "theirs_by_line": corpus.by_line(tokens, length),
    }
    return {name: peer.stepping(itertools.islice(way, BATCHES)) for name, way in ways.items()}


if __name__ == "__main__":
    main()
