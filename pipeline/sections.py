"""The sections of a recipe that training owns; :mod:`pipeline.settings` joins them to a run.

Every field declares what a change to it means to a resumed run: *frozen* is refused, *recorded*
is logged as a change at that step, *free* is of no consequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import pydantic

from configs.schema import config, setting

Positive = Annotated[int, pydantic.Field(ge=1)]
Steps = Annotated[int, pydantic.Field(ge=0)]
Above1 = Annotated[float, pydantic.Field(gt=1)]
Offload: TypeAlias = Literal["none", "cpu", "nvme"]


@config
class InitFromConfig:
    """What a new run begins with instead of drawn weights.

    Attributes:
        checkpoint: a checkpoint of ours, or a folder that ``lexmill import`` wrote.
        what: ``weights`` alone (fresh optimizer, step 0), or ``everything``: moments and step too.
        allow_missing: patterns of the model's tensors that the checkpoint need not have.
        allow_unused: patterns of the checkpoint's tensors that the model need not take.
    """

    checkpoint: Path
    what: Literal["weights", "everything"] = "weights"
    allow_missing: tuple[str, ...] = ()
    allow_unused: tuple[str, ...] = ()


@config
class NotBelowRule:
    """Stop if the mean loss of the ``over`` steps before ``step`` is not below ``loss``."""

    kind: Literal["not_below"]
    loss: float
    step: Positive
    over: Positive = 10


@config
class DivergenceRule:
    """Stop if the mean loss over ``over`` steps exceeds the lowest such mean by ``factor``."""

    kind: Literal["divergence"]
    factor: Above1 = 1.5
    over: Positive = 100


StopRule: TypeAlias = Annotated[NotBelowRule | DivergenceRule, pydantic.Field(discriminator="kind")]


@config
class SpikeConfig:
    """A loss spike: ``patience`` steps in a row above ``factor`` times the median of ``window``.

    The run is then set back to the newest checkpoint before it, and the steps up to the spike's
    last are passed over; at most ``rewinds`` times.
    """

    factor: Above1 = 2.0
    window: Positive = 100
    patience: Positive = 3
    rewinds: Positive = 3


@config
class GuardsConfig:
    """What happens when a step goes wrong.

    Attributes:
        retries: times a step with a loss or gradient that is not finite is computed again.
        max_skipped: such steps in a row that are passed over without an update; one more ends
            the run.
        spike: None lets spikes pass.
    """

    retries: Steps = 1
    max_skipped: Steps = 3
    spike: SpikeConfig | None = None


@config
class TrainConfig:
    """How the training runs.

    Attributes:
        engine: ``deepspeed``, or ``local``: plain torch in one process.
        precision: of the forward and backward pass; weights and moments stay fp32.
        micro_batch_rows: rows a rank works on at once.
        init_from: what to begin with instead of drawn weights.
        activation_checkpointing: compute each layer's activations again in the backward pass
            instead of keeping them.
        skip: ranges ``[from, to)`` of steps that are passed over: no rows, no update.
        stop_if: rules that end a run that leads nowhere.
        guards: what happens when a step goes wrong.
        gradient_clipping: bound of the gradient's global norm; 0 is none.
        log_every, evaluate_every, save_every: in steps; the last step does all three.
        keep_checkpoints: of the newest; ``milestone_every`` steps one is kept for good.
        loader_workers: processes that prepare micro-batches; 0 does it in between.
        verify_data: compare the shards with their checksums before the first step.
    """

    engine: Literal["deepspeed", "local"] = "deepspeed"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    micro_batch_rows: Positive
    init_from: InitFromConfig | None = None
    activation_checkpointing: bool = setting(False, resume="free")
    skip: tuple[tuple[Steps, Positive], ...] = setting((), resume="recorded")
    stop_if: tuple[StopRule, ...] = setting((), resume="recorded")
    guards: GuardsConfig = setting(GuardsConfig(), resume="recorded")
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
        offload_optimizer, offload_parameters: where states and weights lie between their uses.
        nvme_path: the folder for what is offloaded to disks.
        zero_init: partition parameters as they are made, for models larger than one device.
        options: merged into DeepSpeed's configuration (``zero_optimization.sub_group_size``, ...).
    """

    zero_stage: Literal[0, 1, 2, 3] = setting(1, resume="recorded")
    offload_optimizer: Offload = setting("none", resume="free")
    offload_parameters: Offload = setting("none", resume="free")
    nvme_path: Path | None = setting(None, resume="free")
    zero_init: bool = setting(False, resume="free")
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
    """Where a run keeps its checkpoints, metrics and reports.

    Attributes:
        directory: on a disk; for several hosts one they share, or see ``shared``.
        shared: whether all hosts see the same directory. If not, each host keeps the states of
            its own ranks.
        upload: an object store's folder (``s3://bucket/run``) that every checkpoint is copied to.
    """

    directory: Path
    shared: bool = True
    upload: str | None = None
