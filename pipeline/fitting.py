"""Whether rows and a model fit: what the rows ask, what the model predicts and heeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np

from configs.schema import ConfigError
from pipeline.data import Data, MixedSource, RowSource, Source, TaskSource
from pipeline.objectives.task import PretrainingTask
from pipeline.settings import Run
from preprocessing.building import raw_length


def fit(run: Run, data: Data, task: PretrainingTask) -> Data:
    """The data of a run with the targets that are trained, and no others.

    Raises:
        ConfigError: some rows have no target for an objective, or ask for an attention, for
            segments or positions that the model does not have.
    """
    data = keep_targets(data, task.objective_names)
    problems = [
        f"{run.name}: phases.{index}: {problem}"
        for index, source in enumerate(data.phases)
        for own in {one.name: one for one in source.sets}.values()
        for problem in _misfits(run, task, own, alone=not isinstance(source, TaskSource))
    ]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return data


def keep_targets(data: Data, objectives: Collection[str]) -> Data:
    """The same data, with targets of these objectives alone."""
    wanted = frozenset(objectives)

    def kept(source: Source) -> Source:
        if isinstance(source, MixedSource | TaskSource):
            return replace(source, sets=tuple(replace(one, wanted=wanted) for one in source.sets))
        return replace(source, wanted=wanted)

    return replace(
        data,
        phases=tuple(kept(source) for source in data.phases),
        validation={name: replace(one, wanted=wanted) for name, one in data.validation.items()},
    )


def _misfits(run: Run, task: PretrainingTask, source: RowSource, *, alone: bool) -> Iterator[str]:
    """What is wrong with the rows of one examples set.

    Args:
        alone: every objective is trained in every step.
    """
    examples, model = run.preparation.examples[source.name], run.model
    scheme, opened = examples.corruption, source.open()
    told = f"examples '{source.name}': corruption '{scheme.kind}'"
    if alone:
        arrays = opened.rows.arrays(scheme, np.zeros(0, dtype=np.int64), epoch=0)
        for objective in task.objective_names:
            if objective not in arrays.targets:
                yield (
                    f"examples '{source.name}' have no target for {objective}, only for "
                    f"{', '.join(arrays.targets)}; choose another corruption or layout, or leave "
                    "objective and head out"
                )
    rule = scheme.attention()
    if rule is not None and rule not in task.model.attention_rules:
        yield f"{told} is for attention that heeds '{rule}'; that of {model.family} does not"
    if task.model.heeds_segments:
        layout = examples.layout
        if scheme.num_segments() > model.num_segments:
            yield f"{told} needs model.num_segments={scheme.num_segments()}"
        elif layout.num_segments() > model.num_segments:
            yield (
                f"examples '{source.name}': layout '{layout.kind}' needs "
                f"model.num_segments={layout.num_segments()}"
            )
    if problem := task.model.misfit(scheme):
        yield f"{told} {problem}"
    if scheme.keeps_positions():
        longest = raw_length(examples, opened.rows.context)
        if longest > model.max_positions:
            yield f"{told} leaves positions up to {longest}; it needs model.max_positions={longest}"
