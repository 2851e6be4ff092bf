"""A whole run as typed values: the sections that training owns, beside those of preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.schema import (
    ConfigError,
    Document,
    ResumeClass,
    decode_sections,
    resume_classes,
    to_plain,
)
from pipeline.models import ModelConfig
from pipeline.objectives import ObjectiveConfig
from pipeline.optim import AdafactorConfig, OptimizerConfig
from pipeline.optim.schedules import ScheduleConfig
from pipeline.phases import PhaseConfig, Timeline
from pipeline.sections import (
    DeepSpeedConfig,
    EvaluationConfig,
    ExportConfig,
    OutputConfig,
    TrackingConfig,
    TrainConfig,
)
from preprocessing.layouts import LABELLED
from preprocessing.settings import PREPARATION_SECTIONS, Preparation, prepare
from preprocessing.tokenizers import ExistingTokenizerConfig
from preprocessing.tokenizers.specials import roles_of


@dataclass(frozen=True)
class Run:
    """A decoded configuration."""

    name: str
    preparation: Preparation
    model: ModelConfig
    objectives: tuple[ObjectiveConfig, ...]
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    phases: tuple[PhaseConfig, ...]
    train: TrainConfig
    deepspeed: DeepSpeedConfig
    tracking: TrackingConfig
    evaluation: EvaluationConfig
    export: ExportConfig
    output: OutputConfig

    @property
    def seed(self) -> int:
        """The seed of everything."""
        return self.preparation.seed

    @property
    def total_steps(self) -> int:
        """Optimizer steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def plain(self) -> dict[str, Any]:
        """The resolved configuration, defaults spelled out; loads again as it is."""
        preparation = self.preparation
        sections = {
            "seed": preparation.seed,
            "corpus": preparation.corpus,
            "tokenizer": preparation.tokenizer,
            "examples": dict(preparation.examples),
        } | {name: getattr(self, name) for name in _SECTIONS}
        return {name: to_plain(value) for name, value in sections.items()}

    def resume_leaves(self) -> dict[str, tuple[Any, ResumeClass]]:
        """Every key with its value and resume class."""
        leaves: dict[str, tuple[Any, ResumeClass]] = {"seed": (self.preparation.seed, "frozen")}
        sections: dict[str, Any] = {
            "corpus": self.preparation.corpus,
            "tokenizer": self.preparation.tokenizer,
            "examples": dict(self.preparation.examples),
        } | {name: getattr(self, name) for name in _SECTIONS}
        for name, value in sections.items():
            leaves |= resume_classes(value, name, _RESUME.get(name, "frozen"))
        return leaves


_SECTIONS: Mapping[str, Any] = {
    "model": ModelConfig,
    "objectives": tuple[ObjectiveConfig, ...],
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "phases": tuple[PhaseConfig, ...],
    "train": TrainConfig,
    "deepspeed": DeepSpeedConfig,
    "tracking": TrackingConfig,
    "evaluation": EvaluationConfig,
    "export": ExportConfig,
    "output": OutputConfig,
}
_RESUME: Mapping[str, ResumeClass] = {
    "schedule": "recorded",
    "objectives": "recorded",
    "tracking": "free",
    "evaluation": "recorded",
    "export": "free",
    "output": "free",
}


def decode_run(document: Document) -> Run:
    """Decode every section of a configuration.

    Raises:
        ConfigError: everything that is wrong, at once.
    """
    sections = decode_sections(document, {**PREPARATION_SECTIONS, **_SECTIONS})
    run = Run(
        name=document.name,
        preparation=prepare(document, sections),
        **{name: sections[name] for name in _SECTIONS},
    )
    problems = list(_misfits(run))
    if problems:
        raise ConfigError([f"{document.name}: {problem}" for problem in problems])
    return run


def _misfits(run: Run) -> list[str]:
    """What is right by itself and does not fit together."""
    if not run.phases:
        return ["phases: give at least one"]
    problems = [
        problem
        for index, phase in enumerate(run.phases)
        for problem in _misfits_of_phase(run, phase, f"phases.{index}")
    ]
    tokenizer = run.preparation.tokenizer
    if not isinstance(tokenizer, ExistingTokenizerConfig):
        pad = tokenizer.special_tokens.index(roles_of(tokenizer.special_tokens)["pad"])
        problems += misfits_of_padding(run.model, pad)
    if run.train.engine == "deepspeed":
        problems += _memory_misfits(run)
    stage = run.deepspeed.zero_stage
    if run.train.engine == "deepspeed" and stage and isinstance(run.optimizer, AdafactorConfig):
        problems.append(
            f"optimizer.kind: adafactor keeps its second moments by row and column, and ZeRO stage "
            f"{stage} hands it tensors without rows; use deepspeed.zero_stage=0, "
            "train.engine=local, or another optimizer"
        )
    try:
        Timeline(run.phases, run.schedule)
    except ValueError as error:
        problems.append(f"schedule: {error}")
    if run.objectives and all(objective.probability < 1 for objective in run.objectives):
        problems.append(
            "objectives: a step may be left without any; give one of them probability 1"
        )
    trained, predicted = {objective.kind for objective in run.objectives}, set(run.model.outputs)
    problems += [
        f"objectives: {name}: model {run.model.family} does not predict it as it is set up; it "
        f"predicts {', '.join(run.model.outputs)}"
        for name in sorted(trained - predicted)
    ] + [
        f"objectives: {name}: the model predicts it and nothing trains it; add {{kind: {name}}}, "
        "or set the model up without it"
        for name in sorted(predicted - trained)
    ]
    return problems


def _misfits_of_phase(run: Run, phase: PhaseConfig, where: str) -> Iterator[str]:
    """What a phase reads, in batches of what size, beside what the model takes."""
    batches = {f"{where}.batch_rows": phase.batch_rows} | {
        f"{where}.batch_warmup.{number}.batch_rows": stage.batch_rows
        for number, stage in enumerate(phase.batch_warmup)
    }
    for key, batch_rows in batches.items():
        if batch_rows % run.train.micro_batch_rows:
            yield (
                f"{key}: {batch_rows} is not a multiple of "
                f"train.micro_batch_rows ({run.train.micro_batch_rows})"
            )
    known = run.preparation.examples
    for place, name in phase.named_sets():
        if name not in known:
            yield f"{where}.{place}: '{name}' is not one of: {', '.join(known)}"
            continue
        if known[name].length > run.model.max_positions:
            yield (
                f"{where}.{place}: '{name}' has length {known[name].length}, "
                f"more than model.max_positions ({run.model.max_positions})"
            )
        if phase.streams and (not known[name].layout.consecutive() or known[name].pack):
            yield (
                f"{where}.streams: rows of '{name}' do not go on where the row before "
                "ends; use layout 'streams', not packed"
            )
    for asked in sorted(LABELLED.keys() & set(run.model.outputs)):
        without = [
            name for name in phase.sets if name in known and known[name].layout.label() != asked
        ]
        enough = len(without) < len(phase.sets) if phase.tasks else not without
        if not enough:
            yield (
                f"{where}: '{', '.join(without)}' has no labels for the model's {asked} head; use "
                f"layout '{LABELLED[asked]}', or set the model up without that head"
            )


def misfits_of_padding(model: ModelConfig, pad: int) -> list[str]:
    """What speaks against a vocabulary that pads with this id."""
    needed = model.pad_id
    if needed is None or pad == needed:
        return []
    return [
        f"tokenizer: pads with id {pad}, and positions of {model.family} count from the padding's "
        f"id {needed}; train a vocabulary with special_tokens: "
        '["<s>", "<pad>", "</s>", "<unk>", "<mask>"], or adopt one like it'
    ]


def _memory_misfits(run: Run) -> list[str]:
    """What DeepSpeed cannot keep where it is told to, or in that precision."""
    settings, stage = run.deepspeed, run.deepspeed.zero_stage
    rules = (
        (
            run.train.precision == "fp16" and stage == 0,
            "train.precision: stage 0 cannot add up fp16 gradients in fp32; "
            "use deepspeed.zero_stage=1",
        ),
        (
            settings.offload_optimizer != "none" and stage == 0,
            "deepspeed.offload_optimizer: stage 0 partitions no states; "
            "use deepspeed.zero_stage=1, 2 or 3",
        ),
        (
            "nvme" in (settings.offload_optimizer, settings.offload_parameters),
            "deepspeed: offload to nvme trains wrongly with DeepSpeed 0.19: gradients of a length "
            "that is no multiple of 256 are read back wrong, resumed runs lack the states of small "
            "tensors, and LAMB cannot see weights that lie on disks; use cpu",
        ),
        (
            settings.offload_parameters != "none" and stage < 3,
            "deepspeed.offload_parameters: only stage 3 partitions parameters; "
            "use deepspeed.zero_stage=3",
        ),
        (
            settings.zero_init and stage < 3,
            "deepspeed.zero_init: only stage 3 partitions parameters; use deepspeed.zero_stage=3",
        ),
    )
    return [problem for broken, problem in rules if broken]
