"""The preprocessing stages by name: what ``lexmill`` and ``python -m preprocessing`` both run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from preprocessing.settings import Preparation
from preprocessing.stage import Outcome, Stage, run_stage
from preprocessing.stages.build_examples import BuildExamples
from preprocessing.stages.deduplicate import Deduplicate
from preprocessing.stages.ingest import Ingest
from preprocessing.stages.tokenize import Tokenize
from preprocessing.stages.train_tokenizer import TrainTokenizer

STAGES: Mapping[str, tuple[str, Callable[[Preparation], list[Callable[[], Stage]]]]] = {
    "ingest": ("read raw files into document shards", lambda p: [partial(Ingest, p)]),
    "deduplicate": (
        "drop exact duplicates, split off validation sets",
        lambda p: [partial(Deduplicate, p)],
    ),
    "tokenizer": ("train or adopt a vocabulary", lambda p: [partial(TrainTokenizer, p)]),
    "tokenize": ("turn documents into ids with boundaries", lambda p: [partial(Tokenize, p)]),
    "examples": (
        "cut tokens into sequences and pack them into rows",
        lambda p: [partial(BuildExamples, p, name) for name in p.examples],
    ),
}
"""Name -> (what it does, how to make its stage objects), in the order of the road."""


def run_preparation(
    preparation: Preparation, names: tuple[str, ...] = tuple(STAGES), *, overwrite: bool = False
) -> Iterator[Outcome]:
    """Run stages in the order of the road; what is up to date is left alone."""
    for name, (_, make) in STAGES.items():
        if name in names:
            for stage in make(preparation):
                yield run_stage(stage(), workers=preparation.corpus.workers, overwrite=overwrite)
