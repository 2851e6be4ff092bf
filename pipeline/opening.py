"""The data of a run, opened: its examples sets, what each phase makes of them, and their digests.

A phase reads one examples set, a mixture of several, or one task a step. The rows of a mixture
have one shape. Tasks may have rows of different shapes and targets; what one of them has no target
for gets an empty one in its batches, so that all heads are computed in every step.

A set with rows of several lengths is read like tasks, one length a step: all ranks get rows of the
same length, as many tokens in every step, and the shares of the lengths are those in the set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from configs.schema import ConfigError, digest
from pipeline.data import DIGEST_OF_ROWS, Data, MixedSource, RowSource, Source, TaskSource
from pipeline.phases import PhaseConfig, TaskOrder, stretches
from pipeline.settings import Run, misfits_of_padding
from preprocessing.arrangement import Arrays, Shape
from preprocessing.block_cache import BlockCache
from preprocessing.draws import purpose_key
from preprocessing.order import Interleave, whole_shares
from preprocessing.places import RemotePath
from preprocessing.rows import RowSet, copy_split
from preprocessing.staging import stage_shards
from preprocessing.storage import MANIFEST, InputError, Shard, file_digest
from preprocessing.vocabulary import TOKENIZER_FILE, Vocabulary

_TRAIN = "train"


def open_data(run: Run) -> Data:
    """The rows of a run, checked against its configuration.

    Raises:
        InputError: examples are missing, were made with another tokenizer, are too few for a
            step, or do not go together.
        ConfigError: the vocabulary does not fit the model, or a task has no target for what it
            is to train.
    """
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    if vocabulary.size > run.model.vocab_size:
        raise ConfigError(
            [
                f"{run.name}: model.vocab_size: {run.model.vocab_size} is less than the "
                f"{vocabulary.size} pieces of {vocabulary.directory}"
            ]
        )
    misfits = misfits_of_padding(run.model, vocabulary.pad_id)
    if misfits:
        raise ConfigError([f"{vocabulary.directory}: {problem}" for problem in misfits])
    phases: list[Source] = []
    digests, manifests = {}, {}
    for index, phase in enumerate(run.phases):
        sets = {name: _open_set(run, name, vocabulary) for name in phase.sets}
        for own in sets.values():
            _check_rows(own, phase, f"phases.{index}")
        source = _source(run, index, sets)
        phases.append(source)
        identity = {name: own.digest for name, own in sets.items()}
        order = source.order.counts if isinstance(source, MixedSource) else None
        digests[str(index)] = f"{DIGEST_OF_ROWS}{digest([identity, order])}"
        if phase.examples is not None:
            manifests[str(index)] = file_digest(sets[phase.examples].directory / MANIFEST)
    validation = dict(_held_out(sets, source))
    return Data(tuple(phases), validation, digests, manifests, vocabulary.digest)


@dataclass(frozen=True)
class _Set:
    """An examples set and its training rows."""

    name: str
    directory: Path
    source: RowSource
    rows: RowSet

    @property
    def shards(self) -> list[Shard]:
        """Of the training rows, in all copies."""
        manifest = self.rows.manifest
        folders = [
            copy_split(_TRAIN, copy, bucket)
            for copy in range(manifest.facts["splits"][_TRAIN])
            for bucket in (None, *self.buckets)
        ]
        return [shard for folder in folders for shard in manifest.of(folder)]

    @property
    def buckets(self) -> tuple[int, ...]:
        """Lengths of shorter rows, where the set has any."""
        return tuple(int(length) for length in self.rows.manifest.facts.get("buckets", {}))

    @property
    def tokens(self) -> float:
        """Tokens of an epoch."""
        return sum(shard.counts["tokens"] for shard in self.shards) / len(self.rows.num_rows)

    @property
    def tokens_a_row(self) -> float:
        """Mean over all copies."""
        return self.tokens * len(self.rows.num_rows) / max(1, sum(self.rows.num_rows))

    @property
    def digest(self) -> str:
        """Of the training rows: what else the set holds, and was made beside, is no part of it."""
        facts = {name: fact for name, fact in self.rows.manifest.facts.items() if name != "splits"}
        tables = set(facts.get("tables", {}).values())
        kept = [shard for shard in self.rows.manifest.shards if shard.name in tables]
        shards = [[shard.rows, shard.checksum] for shard in (*self.shards, *kept)]
        return digest([facts, len(self.rows.num_rows), shards])

    def no_rows(self) -> Arrays:
        """A micro-batch of none of its rows: what arrays there are of them."""
        nothing = np.zeros(0, dtype=np.int64)
        return self.rows.arrays(self.source.corruption, nothing, epoch=0)


def _open_set(run: Run, name: str, vocabulary: Vocabulary) -> _Set:
    directory, cache = _at_hand(run, run.preparation.examples_directory(name))
    rows = RowSet(directory, _TRAIN, seed=run.seed, cache=cache)
    if rows.manifest.facts["tokenizer"] != vocabulary.digest:
        raise InputError(
            f"{directory}: these examples were made with another tokenizer than "
            f"{vocabulary.directory / TOKENIZER_FILE}; run the examples stage again"
        )
    corruption = run.preparation.examples[name].corruption
    source = RowSource(directory, _TRAIN, corruption, run.seed, None, cache=cache, name=name)
    return _Set(name, directory, source, rows)


def _at_hand(run: Run, directory: Path) -> tuple[Path, BlockCache | None]:
    """Where to read a directory of examples, and what to keep of it if that is far away."""
    settings = run.train.far_data
    if settings is None or not isinstance(directory, RemotePath):
        return directory, None
    if settings.stage:
        return stage_shards(directory, settings.directory), None
    return directory, BlockCache(settings.directory, settings.max_bytes)


def _check_rows(own: _Set, phase: PhaseConfig, where: str) -> None:
    """Refuse a set that not even one step, or one block of a mixture, could be made of."""
    if own.buckets and phase.examples is None:
        raise InputError(
            f"{own.directory}: rows of several lengths are read by themselves alone; {where} mixes "
            "them with others: leave examples.buckets out"
        )
    needed = 1 if phase.mixture is not None else phase.largest_batch
    if own.rows.num_rows[0] < needed:
        raise InputError(
            f"{own.directory}: {own.rows.num_rows[0]} training rows are fewer than one step takes "
            f"({where}.batch_rows: {needed}); use a larger corpus or a smaller batch"
        )


def _source(run: Run, index: int, sets: Mapping[str, _Set]) -> Source:
    """What a phase reads."""
    phase = run.phases[index]
    numbered = {
        name: replace(own.source, phase=index, number=number, window=phase.shuffle_window)
        for number, (name, own) in enumerate(sets.items())
    }
    if phase.mixture is not None:
        shape = _common_shape(sets, f"phases.{index}.mixture")
        counts = _shares_of_rows(phase, sets, f"phases.{index}.mixture")
        order = Interleave(counts, purpose_key(run.seed, "mixture", index))
        return MixedSource(
            tuple(replace(source, shape=shape) for source in numbered.values()), order
        )
    if phase.tasks is not None:
        return _tasks(run, index, sets, numbered)
    (own,), (source,) = sets.values(), numbered.values()
    if own.buckets:
        return _lengths(run, index, own, source)
    return replace(source, streams=phase.batch_rows if phase.streams else None)


def _shares_of_rows(phase: PhaseConfig, sets: Mapping[str, _Set], where: str) -> tuple[int, ...]:
    """Rows of each set in a block of a mixture, from shares of tokens.

    Sets of 100 and 50 tokens a row with equal shares of the tokens: one row to two.
    """
    assert phase.mixture is not None
    weights = [
        phase.mixture[name] * own.tokens**phase.mixture_alpha / own.tokens_a_row
        for name, own in sets.items()
    ]
    counts = whole_shares(weights, phase.block)
    for name, count in zip(sets, counts, strict=True):
        if not count:
            raise InputError(
                f"{where}: '{name}' gets no row in a block of {phase.block}; raise its weight, or "
                "the phase's block"
            )
    return counts


def _common_shape(sets: Mapping[str, _Set], where: str) -> Shape:
    """The shape that the rows of all sets fit.

    Raises:
        InputError: there is none.
    """
    shapes = {name: own.rows.shape for name, own in sets.items()}
    traits = {
        name: (shape.length, shape.decoder_length, sorted(sets[name].no_rows().named()))
        for name, shape in shapes.items()
    }
    first, *others = traits
    for name in others:
        if traits[name] != traits[first]:
            raise InputError(
                f"{where}: rows of '{first}' and '{name}' do not go into one batch: length, "
                f"decoder's length and arrays are {traits[first]} and {traits[name]}"
            )
    every = list(shapes.values())
    return replace(
        every[0],
        max_targets={
            target: max(shape.max_targets[target] for shape in every)
            for target in every[0].max_targets
        },
        max_sequences=max(shape.max_sequences for shape in every),
    )


def _tasks(
    run: Run, index: int, sets: Mapping[str, _Set], numbered: Mapping[str, RowSource]
) -> TaskSource:
    phase = run.phases[index]
    assert phase.tasks is not None
    names = tuple(sorted(phase.tasks))
    tasks = [phase.tasks[name] for name in names]
    if len({own.rows.shape.decoder_length is None for own in sets.values()}) > 1:
        raise InputError(f"phases.{index}.tasks: either all of them feed a decoder, or none")
    targets = {name: own.no_rows().targets for name, own in sets.items()}
    every = {n: like for own in targets.values() for n, like in own.items()}
    known = [objective.kind for objective in run.objectives]
    trained, problems = [], []
    for name, task in zip(names, tasks, strict=True):
        own = targets[task.examples]
        wanted = task.objectives or [kind for kind in known if kind in own]
        problems += [
            f"{run.name}: phases.{index}.tasks.{name}: '{task.examples}' has no target for "
            f"{objective}, or objectives does not list it"
            for objective in wanted
            if objective not in own or objective not in known
        ]
        if not any(one.kind in wanted and one.probability == 1 for one in run.objectives):
            problems.append(
                f"{run.name}: phases.{index}.tasks.{name}: a step may be left without any "
                "objective; give it one of probability 1"
            )
        trained.append(frozenset(wanted))
    counts = whole_shares([task.weight for task in tasks], phase.block)
    problems += [
        f"{run.name}: phases.{index}.tasks.{name}: gets no step in a block of {phase.block}; "
        "raise its weight, or the phase's block"
        for name, count in zip(names, counts, strict=True)
        if not count
    ]
    if problems:
        raise ConfigError(problems)
    return TaskSource(
        sets=tuple(
            replace(
                numbered[task.examples],
                number=number,
                absent={n: like for n, like in every.items() if n not in targets[task.examples]},
            )
            for number, task in enumerate(tasks)
        ),
        names=names,
        trained=tuple(trained),
        order=TaskOrder(
            Interleave(counts, purpose_key(run.seed, "tasks", index)), stretches(phase)
        ),
    )


def _lengths(run: Run, index: int, own: _Set, source: RowSource) -> TaskSource:
    """Rows of several lengths, as many steps of each as it has rows, by their tokens."""
    phase, longest = run.phases[index], own.rows.shape.length
    buckets = sorted(own.buckets)
    sources = [replace(source, bucket=one, number=n) for n, one in enumerate((*buckets, None))]
    lengths = [*buckets, longest]
    rows_at = [longest // length for length in lengths]
    rows = [one.open().rows.num_rows for one in sources]
    counts = whole_shares(
        [sum(number) / at for number, at in zip(rows, rows_at, strict=True)], phase.block
    )
    for length, number, at, count in zip(lengths, rows, rows_at, counts, strict=True):
        if not count or number[0] < at * phase.largest_batch:
            raise InputError(
                f"{own.directory}: {number[0]} rows of {length} tokens are fewer than a step takes "
                f"({at * phase.largest_batch}), or than one step in {phase.block}; leave {length} "
                "out of examples.buckets"
            )
    return TaskSource(
        sets=tuple(sources),
        names=tuple(f"length-{length}" for length in lengths),
        trained=(None,) * len(sources),
        order=TaskOrder(
            Interleave(counts, purpose_key(run.seed, "lengths", index)), stretches(phase)
        ),
        rows_at=tuple(rows_at),
    )


def _held_out(sets: Mapping[str, _Set], last: Source) -> Iterator[tuple[str, RowSource]]:
    """The validation sets of the last phase; of several examples sets each under its name."""
    absent = {source.directory: source.absent for source in last.sets}
    for name, own in sets.items():
        for split in own.rows.manifest.facts["splits"]:
            if split == _TRAIN:
                continue
            told = split if len(sets) == 1 else f"{split}-{name}"
            source = replace(own.source, split=split, absent=absent[own.directory])
            if not own.buckets:
                yield told, source
                continue
            for bucket in (*sorted(own.buckets), None):
                shorter = replace(source, bucket=bucket)
                if shorter.open().num_rows:
                    yield f"{told}-{bucket or own.rows.shape.length}", shorter
