"""A whole run as typed values: the sections that training owns, beside those of preprocessing.

Every field declares what a change to it means to a resumed run: *frozen* is refused, *recorded*
is logged as a change at that step, *free* is of no consequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from configs.schema import (
    ConfigError,
    Document,
    ResumeClass,
    config,
    decode_sections,
    resume_classes,
    setting,
    to_plain,
)
from pipeline.models import ModelConfig
from pipeline.objectives import ObjectiveConfig
from pipeline.optim import OptimizerConfig
from pipeline.optim.schedules import ScheduleConfig
from pipeline.phases import PhaseConfig, Timeline
from preprocessing.layouts import PairsConfig
from preprocessing.settings import PREPARATION_SECTIONS, Preparation, prepare

Positive = Annotated[int, pydantic.Field(ge=1)]


@config
class TrainConfig:
    """How the training runs.

    Attributes:
        engine: ``deepspeed``, or ``local``: plain torch in one process.
        precision: of the forward and backward pass; weights and moments stay fp32.
        micro_batch_rows: rows a rank works on at once.
        gradient_clipping: bound of the gradient's global norm; 0 is none.
        log_every, evaluate_every, save_every: in steps; the last step does all three.
        keep_checkpoints: of the newest; ``milestone_every`` steps one is kept for good.
        loader_workers: processes that prepare micro-batches; 0 does it in between.
        verify_data: compare the shards with their checksums before the first step.
    """

    engine: Literal["deepspeed", "local"] = "deepspeed"
    precision: Literal["fp32", "bf16"] = "fp32"
    micro_batch_rows: Positive
    gradient_clipping: Annotated[float, pydantic.Field(ge=0)] = setting(1.0, resume="recorded")
    log_every: Positive = setting(10, resume="free")
    evaluate_every: Positive = setting(1000, resume="free")
    save_every: Positive = setting(1000, resume="free")
    keep_checkpoints: Positive = setting(2, resume="free")
    milestone_every: Positive | None = setting(None, resume="free")
    loader_workers: Annotated[int, pydantic.Field(ge=0)] = setting(1, resume="free")
    verify_data: bool = setting(True, resume="free")


@config
class DeepSpeedConfig:
    """What DeepSpeed is told beyond what follows from the other sections.

    Attributes:
        zero_stage: what is partitioned over the ranks: nothing, optimizer states, and gradients,
            and parameters.
        options: merged into DeepSpeed's configuration (``zero_optimization.sub_group_size``, ...).
    """

    zero_stage: Literal[0, 1, 2, 3] = setting(1, resume="recorded")
    options: Mapping[str, pydantic.JsonValue] = setting({}, resume="recorded")

    def __post_init__(self) -> None:
        owned = {
            "train_batch_size": "phases.batch_rows",
            "train_micro_batch_size_per_gpu": "train.micro_batch_rows",
            "gradient_accumulation_steps": "phases.batch_rows",
            "optimizer": "optimizer",
            "scheduler": "schedule",
            "gradient_clipping": "train.gradient_clipping",
            "bf16": "train.precision",
            "fp16": "train.precision",
        }
        for key in self.options:
            if key in owned:
                raise ValueError(f"options.{key} follows from {owned[key]}; set that")
        zero = self.options.get("zero_optimization", {})
        if isinstance(zero, dict) and zero.get("round_robin_gradients"):
            raise ValueError(
                "round_robin_gradients corrupts checkpoints at another world size "
                "(seen with DeepSpeed 0.19); leave it out"
            )


@config
class TrackingConfig:
    """Weights & Biases; ``metrics.jsonl`` is written in any case.

    ``auto`` is online where an API key is set, offline elsewhere.
    """

    project: str = "lexmill"
    name: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"


@config
class EvaluationConfig:
    """Held-out evaluation, while training and after. ``max_rows`` bounds each validation set."""

    max_rows: Positive | None = 2048
    micro_batch_rows: Positive = 32


@config
class ExportConfig:
    """Where the Hugging Face form goes; ``<output.directory>/export`` where nothing is said."""

    directory: Path | None = None


@config
class OutputConfig:
    """Where a run keeps its checkpoints, metrics and reports."""

    directory: Path


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
    problems = []
    paired = {
        name: isinstance(examples.layout, PairsConfig)
        for name, examples in run.preparation.examples.items()
    }
    for index, phase in enumerate(run.phases):
        where = f"phases.{index}"
        examples = run.preparation.examples.get(phase.examples)
        if examples is None:
            known = ", ".join(run.preparation.examples)
            problems.append(f"{where}.examples: '{phase.examples}' is not one of: {known}")
            continue
        if phase.batch_rows % run.train.micro_batch_rows:
            problems.append(
                f"{where}.batch_rows: {phase.batch_rows} is not a multiple of "
                f"train.micro_batch_rows ({run.train.micro_batch_rows})"
            )
        if examples.length > run.model.max_positions:
            problems.append(
                f"{where}.examples: '{phase.examples}' has length {examples.length}, "
                f"more than model.max_positions ({run.model.max_positions})"
            )
        if run.model.next_sentence and not paired[phase.examples]:
            problems.append(
                f"{where}.examples: '{phase.examples}' has no pairs for the model's "
                "next-sentence head; use layout 'pairs', or model.next_sentence=false"
            )
    bf16 = run.train.engine == "deepspeed" and run.train.precision == "bf16"
    if bf16 and run.deepspeed.zero_stage == 0:
        problems.append(
            "deepspeed.zero_stage: stage 0 cannot add up bf16 gradients in fp32; "
            "use stage 1, 2 or 3, or train.precision=fp32"
        )
    try:
        Timeline(run.phases, run.schedule)
    except ValueError as error:
        problems.append(f"schedule: {error}")
    trained = {objective.kind for objective in run.objectives}
    if ("next_sentence" in trained) != run.model.next_sentence:
        problems.append(
            "objectives: next_sentence is trained exactly where model.next_sentence is true"
        )
    return problems
