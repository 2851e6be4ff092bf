"""The preprocessing stages by name: what ``lexmill`` and ``python -m preprocessing`` both run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from preprocessing.executors import open_executor
from preprocessing.executors.base import Executor, use_system_memory
from preprocessing.executors.slices import TaskSlice
from preprocessing.settings import Preparation
from preprocessing.stage import Outcome, SliceOutcome, Stage, run_slice, run_stage
from preprocessing.tokenizers.settings import ExistingTokenizerConfig


def _ingest(preparation: Preparation) -> list[Callable[[], Stage]]:
    from preprocessing.stages.ingest import Ingest

    return [partial(Ingest, preparation)]


def _clean(preparation: Preparation) -> list[Callable[[], Stage]]:
    if not preparation.corpus.clean:
        return []
    from preprocessing.stages.clean import Clean

    return [partial(Clean, preparation)]


def _deduplicate(preparation: Preparation) -> list[Callable[[], Stage]]:
    from preprocessing.stages.deduplicate import Deduplicate
    from preprocessing.stages.matches import Matches
    from preprocessing.stages.signatures import Signatures

    return [partial(stage, preparation) for stage in (Signatures, Matches, Deduplicate)]


def _tokenizer(preparation: Preparation) -> list[Callable[[], Stage]]:
    from preprocessing.stages.train_tokenizer import TrainTokenizer

    return [partial(TrainTokenizer, preparation)]


def _tokenize(preparation: Preparation) -> list[Callable[[], Stage]]:
    from preprocessing.stages.tokenize import Tokenize

    return [partial(Tokenize, preparation)]


def _examples(preparation: Preparation) -> list[Callable[[], Stage]]:
    from preprocessing.stages.build_examples import BuildExamples
    from preprocessing.stages.build_tables import BuildTable, CountTokens

    return [
        *(
            partial(stage, preparation, table)
            for table in preparation.tables
            for stage in (CountTokens, BuildTable)
        ),
        *(partial(BuildExamples, preparation, name) for name in preparation.examples),
    ]


STAGES: Mapping[str, tuple[str, Callable[[Preparation], list[Callable[[], Stage]]]]] = {
    "ingest": ("read raw files into document shards", _ingest),
    "clean": ("filter and repair documents (where corpus.clean is given)", _clean),
    "deduplicate": ("drop duplicates, split off validation sets", _deduplicate),
    "tokenizer": ("train or adopt a vocabulary", _tokenizer),
    "tokenize": ("turn documents into ids with boundaries", _tokenize),
    "examples": ("cut tokens into sequences and pack them into rows", _examples),
}
"""Name -> (what it does, how to make its stage objects), in the order of the road.

A stage is imported when it is made: some bring compiled code along that others do not need.
"""


def run_preparation(
    preparation: Preparation,
    names: tuple[str, ...] = tuple(STAGES),
    *,
    overwrite: bool = False,
    merge: bool = False,
) -> Iterator[Outcome]:
    """Run stages in the order of the road; what is up to date is left alone.

    With ``merge`` the first stage that is not finished is finished from what slices have done,
    and what follows it is left to further slices.
    """
    corpus = preparation.corpus
    if isinstance(preparation.tokenizer, ExistingTokenizerConfig) and "tokenizer" in names:
        from preprocessing.tokenizers.adoption import existing_file

        existing_file(preparation.tokenizer.path)  # not only when the corpus has been read
    with _executor(preparation) as executor:
        for make in _stages(preparation, names):
            outcome = run_stage(
                make(),
                executor=executor,
                overwrite=overwrite,
                merge=merge,
                check_disk=corpus.check_disk,
            )
            yield outcome
            if merge and outcome.status == "made":
                return


def run_slices(
    preparation: Preparation, name: str, part: TaskSlice, *, overwrite: bool = False
) -> Iterator[Outcome | SliceOutcome]:
    """Do one slice of the first stage behind a command that is not finished."""
    with _executor(preparation) as executor:
        for make in _stages(preparation, (name,)):
            outcome = run_slice(
                make(),
                part,
                executor=executor,
                overwrite=overwrite,
                check_disk=preparation.corpus.check_disk,
            )
            yield outcome
            if isinstance(outcome, SliceOutcome):
                return


def count_stages(preparation: Preparation, name: str) -> int:
    """How many stages stand behind a command."""
    return len(_stages(preparation, (name,)))


def _stages(preparation: Preparation, names: tuple[str, ...]) -> list[Callable[[], Stage]]:
    return [
        stage for name, (_, make) in STAGES.items() if name in names for stage in make(preparation)
    ]


def _executor(preparation: Preparation) -> contextlib.closing[Executor]:
    use_system_memory()
    corpus = preparation.corpus
    return contextlib.closing(
        open_executor(corpus.executor, workers=corpus.workers, retries=corpus.retries)
    )
