"""A training step of each family, beside its class of transformers and beside our BERT.

    python benchmarks/families.py [--quick] [--json] [--families roberta,albert] [--size mini]

All models have as many layers, as wide, and vocabularies of 30,522 pieces; the text, the sizes and
what a step is are those of ``training.py``: fp32 with all cores on CPUs, bf16 by autocast on GPUs,
no dropout, fused AdamW, clipping to 1. Each family has the layout and the corruption that it is
known for. Speeds are tokens a second that are no padding, of micro-batches of as many places:

- ours: several sequences a row, attention within each, scores at the targets alone;
- theirs: the class that the family is exported to, with SDPA, fed in its default way: sequences of
  the same layout and corruption, one a row, padded to the longest, labels at all places. It trains
  what it has a loss for: MacBERT's and SpanBERT's has none beside masked tokens, and does less.

Ratios are ours over theirs (``family_vs_transformers``) and over our BERT's (``family_vs_bert``).
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from measure import alternate, tell
from peers import Peer
from torch import Tensor
from training import BATCHES, RATE, SIZES, VOCABULARY, write_text

from configs.schema import load
from pipeline.batch import IGNORED, Batch
from pipeline.data import MicroBatch, RowSource, count_targets, to_batch
from pipeline.huggingface import form_of
from pipeline.huggingface.tokenizer import read_tokenizer
from pipeline.precision import dtype
from pipeline.settings import Run, decode_run
from pipeline.training.feeding import feed
from pipeline.training.start import build_engine
from preprocessing.commands import run_preparation

LENGTH = 128
THEIR_LABELS = {
    "next_sentence": "next_sentence_label",
    "sentence_order": "sentence_order_label",
}
"""What their classes call the labels of a sequence."""


@dataclass(frozen=True)
class Family:
    """What of a recipe is a family's own: sections' settings."""

    layout: str
    corruption: Mapping[str, Any]
    outputs: tuple[str, ...]
    model: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)


SIMILAR = {"kind": "cooccurring", "num_words": 2000, "num_contexts": 200, "dimensions": 50}
FAMILIES = {
    "bert": Family("pairs", {"kind": "masked"}, ("masked_lm", "next_sentence")),
    "roberta": Family(
        "doc_sentences",
        {"kind": "masked", "rounding": "stochastic", "random_specials": False},
        ("masked_lm",),
        tokenizer={"special_tokens": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]},
    ),
    "albert": Family(
        "sentence_order",
        {"kind": "ngrams"},
        ("masked_lm", "sentence_order"),
        model={"embedding_size": 128},
    ),
    "spanbert": Family("doc_sentences", {"kind": "spans"}, ("masked_lm", "span_boundary")),
    "macbert": Family(
        "sentence_order",
        {"kind": "similar", "words": SIMILAR},
        ("masked_lm", "sentence_order"),
    ),
    "ernie": Family(
        "pairs",
        {"kind": "units", "level": {"tokens": 1, "words": 1}},
        ("masked_lm", "next_sentence"),
    ),
}


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the tokens, 3 rounds")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--size", default="base" if gpu else "mini", choices=SIZES)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=65536 if gpu else 4096, help="a micro-batch")
    options = parser.parse_args()
    names = options.families.split(",")
    if unknown := [name for name in names if name not in FAMILIES]:
        parser.error(f"no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    if options.quick:
        options.rounds, options.tokens = 3, options.tokens // 4
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    rows = options.tokens // LENGTH
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_text(root, megabytes=0.8 if options.quick and not gpu else 6)
        bert = ours(prepare(root, "bert", options.size), rows)
        for name in names:
            run = prepare(root, name, options.size)
            work = {"theirs": theirs(run, rows), "bert": bert}
            work["ours"] = bert if name == "bert" else ours(run, rows)
            speeds, every = alternate(work, rounds=options.rounds)
            ratios[f"family_vs_transformers.{name}"] = speeds["ours"] / speeds["theirs"]
            if name != "bert":
                ratios[f"family_vs_bert.{name}"] = speeds["ours"] / speeds["bert"]
            for whose in ("ours", "theirs"):
                figures[f"tokens_per_second_{whose}.{name}"] = speeds[whose]
                figures[f"spread_{whose}.{name}"] = max(every[whose]) / min(every[whose])
    tell(ratios, figures, as_json=options.json)


def prepare(root: Path, name: str, size: str) -> Run:
    """The family's run, its stages brought up to date; documents and tokens are shared."""
    family = FAMILIES[name]
    layers, width, heads = SIZES[size]
    examples = {
        "length": LENGTH,
        "layout": {"kind": family.layout},
        "corruption": dict(family.corruption),
    }
    sections = {
        "seed": 1,
        "corpus": {
            "directory": str(root / "data"),
            "inputs": [str(root / "text.txt")],
            "workers": 2,
        },
        "tokenizer": {"kind": "wordpiece", "vocab_size": VOCABULARY, **family.tokenizer},
        "examples": {"packed": {**examples, "pack": True}, "padded": examples},
        "model": {
            "family": name,
            "vocab_size": VOCABULARY,
            "num_layers": layers,
            "hidden_size": width,
            "num_heads": heads,
            "intermediate_size": 4 * width,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            **family.model,
        },
        "objectives": [{"kind": output} for output in family.outputs],
        "optimizer": {"kind": "adamw"},
        "schedule": {"kind": "constant", "warmup_steps": 1},
        "phases": [{"examples": "packed", "steps": 2, "batch_rows": 8, "learning_rate": RATE}],
        "train": {
            "engine": "local",
            "micro_batch_rows": 8,
            "precision": "bf16" if torch.cuda.is_available() else "fp32",
            "compile": torch.cuda.is_available(),
        },
        "tracking": {"mode": "disabled"},
        "output": {"directory": str(root / "run")},
    }
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(sections, sort_keys=False))
    run = decode_run(load(path))
    for _ in run_preparation(run.preparation):
        pass
    return run


def batches_of(run: Run, name: str, rows: int) -> list[MicroBatch]:
    """The first micro-batches of a set."""
    preparation = run.preparation
    corruption = preparation.examples[name].corruption
    directory = preparation.examples_directory(name)
    opened = RowSource(directory, "train", corruption, run.seed, 0).open()
    starts = range(0, BATCHES * rows, rows)
    return [
        MicroBatch(to_batch(opened.arrays(range(start, start + rows))), 0, 0) for start in starts
    ]


def ours(run: Run, rows: int) -> Callable[[], int]:
    """A step as the trainer does it, to be called again and again; it returns the real tokens."""
    engine = build_engine(run)
    for group in engine.optimizer.param_groups:
        group["fused"], group["foreach"] = True, False
    names = engine.task.objective_names
    path = engine.task.model.attention_path(engine.device, dtype(run.train.precision))
    steps = [[one] for one in batches_of(run, "packed", rows)]
    fed = feed(steps, engine.device, names, varlen=path.name == "varlen")
    turns = itertools.cycle(
        [
            (
                step.batches[0].batch,
                count_targets(step.batches, names)[:-3].float().to(engine.device),
                real_tokens(step.batches[0].batch),
            )
            for step in fed
        ]
    )

    def step() -> int:
        batch, counts, real = next(turns)
        engine.backward(batch, counts)
        engine.step(RATE)
        if engine.device.type == "cuda":
            torch.cuda.synchronize(engine.device)
        return real

    return step


def theirs(run: Run, rows: int) -> Callable[[], int]:
    """A step of the class that the family is exported to."""
    form = form_of(run.model)
    info = read_tokenizer(run.preparation.tokenizer_directory)
    fields = form.config_to_huggingface(run.model, info)
    kind = getattr(transformers, fields["architectures"][0])
    config = kind.config_class(**fields)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    known = form.answers(run.model)
    made = (collated(one.batch, set(known)) for one in batches_of(run, "padded", rows))
    return Peer(kind, config, device, RATE).stepping(made)


def collated(batch: Batch, known: set[str]) -> dict[str, Tensor]:
    """One sequence a row, padded to the longest, with labels as their classes want them."""
    mask = batch.sequence_ids > 0
    width = int(mask.sum(1).max())
    made = {
        "input_ids": batch.ids.long()[:, :width],
        "token_type_ids": batch.segment_ids.long()[:, :width],
        "attention_mask": mask.long()[:, :width],
        "labels": dense(batch, "masked_lm")[:, :width],
    }
    for name, label in THEIR_LABELS.items():
        if name in known & batch.targets.keys():
            made[label] = dense(batch, name)[:, 0]
    return {name: tensor.contiguous() for name, tensor in made.items()}


def dense(batch: Batch, name: str) -> Tensor:
    """The labels of an objective at their places, ``[rows, length]``."""
    own = batch.targets[name]
    real = own.labels != IGNORED
    labels = torch.full((batch.ids.numel(),), IGNORED)
    labels[own.indices[real].long()] = own.labels[real].long()
    return labels.view(batch.ids.shape)


def real_tokens(batch: Batch) -> int:
    """Tokens that are no padding."""
    return int((batch.sequence_ids > 0).sum())


if __name__ == "__main__":
    main()
