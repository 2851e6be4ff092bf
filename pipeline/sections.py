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
from pipeline.precision import Precision

Positive = Annotated[int, pydantic.Field(ge=1)]
Steps = Annotated[int, pydantic.Field(ge=0)]
Above1 = Annotated[float, pydantic.Field(gt=1)]
Offload: TypeAlias = Literal["none", "cpu", "nvme"]


@config
class InitFromConfig:
    """What a new run begins with instead of drawn weights.

    Attributes:
        checkpoint: a checkpoint of ours, a run's output directory (its newest), or a folder that
            ``lexmill import`` wrote.
        what: ``weights`` alone (fresh optimizer, step 0), or ``everything``: moments and step too,
            under the rules of a resume.
        allow_missing: patterns of the model's tensors that the checkpoint need not have.
        allow_unused: patterns of the checkpoint's tensors that the model need not take.
    """

    checkpoint: Path
    what: Literal["weights", "everything"] = "weights"
    allow_missing: tuple[str, ...] = ()
    allow_unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.what == "everything" and (self.allow_missing or self.allow_unused):
            raise ValueError(
                "what 'everything' goes on with the same model; tensors may differ with 'weights'"
            )


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
class FarDataConfig:
    """What becomes of examples that lie in an object store (``corpus.directory: s3://...``).

    Attributes:
        directory: on a local disk of every host; runs may share it.
        stage: copy them there whole before the first step; else blocks of them, as they are read.
        max_bytes: of the blocks together; those that were used longest ago go first.
    """

    directory: Path
    stage: bool = False
    max_bytes: Annotated[int, pydantic.Field(ge=2**26)] = 100 * 2**30


def _as_named(checkpointing: object) -> object:
    """What was yes or no before there was a choice."""
    if isinstance(checkpointing, bool):
        return "full" if checkpointing else "none"
    return checkpointing


@config
class TrainConfig:
    """How the training runs.

    Attributes:
        engine: ``deepspeed``, or ``local``: plain torch in one process.
        precision: of the forward and backward pass; weights and moments stay fp32.
        micro_batch_rows: rows a rank works on at once.
        init_from: what to begin with instead of drawn weights.
        activation_checkpointing: what the backward pass computes again instead of keeping it:
            ``none``; ``selective``, the widest activations; ``full``, whole layers.
        compile: compile each layer for the shapes of a micro-batch (:mod:`torch.compile`). Takes
            a minute at the start, pays off on GPUs. Draws other dropout masks.
        skip: ranges ``[from, to)`` of steps that are passed over: no rows, no update.
        stop_if: rules that end a run that leads nowhere.
        guards: what happens when a step goes wrong.
        gradient_clipping: bound of the gradient's global norm; 0 is none.
        log_every, evaluate_every, save_every: in steps; the last step does all three.
        keep_checkpoints: of the newest; ``milestone_every`` steps one is kept for good.
        asynchronous_saves: copy the state to the host's memory and write the checkpoint while the
            training goes on. The memory has to hold the states of all the host's ranks, and the
            weights, once more; where they lie there already (a CPU, an offloaded optimizer), it
            doubles. Killed before it is whole, the run goes on from the checkpoint before.
        loader_workers: processes that prepare micro-batches; 0 does it in between.
        far_data: a local disk for examples of an object store; left out, they are read from there
            every time.
        verify_data: compare the shards with their checksums before the first step.
    """

    engine: Literal["deepspeed", "local"] = setting("deepspeed", resume="recorded")
    precision: Precision = "fp32"
    micro_batch_rows: Positive
    init_from: InitFromConfig | None = setting(None, resume="recorded")
    activation_checkpointing: Annotated[
        Literal["none", "selective", "full"], pydantic.BeforeValidator(_as_named)
    ] = setting("selective", resume="free")
    compile: bool = setting(False, resume="recorded")
    skip: tuple[tuple[Steps, Positive], ...] = setting((), resume="recorded")
    stop_if: tuple[StopRule, ...] = setting((), resume="recorded")
    guards: GuardsConfig = setting(GuardsConfig(), resume="recorded")
    gradient_clipping: Annotated[float, pydantic.Field(ge=0)] = setting(1.0, resume="recorded")
    log_every: Positive = setting(10, resume="free")
    evaluate_every: Positive = setting(1000, resume="free")
    save_every: Positive = setting(1000, resume="free")
    keep_checkpoints: Positive = setting(2, resume="free")
    milestone_every: Positive | None = setting(None, resume="free")
    asynchronous_saves: bool = setting(False, resume="free")
    loader_workers: Annotated[int, pydantic.Field(ge=0)] = setting(1, resume="free")
    far_data: FarDataConfig | None = setting(None, resume="free")
    verify_data: bool = setting(True, resume="free")

    def __post_init__(self) -> None:
        edges = [edge for pair in self.skip for edge in pair]
        if any(begin >= end for begin, end in self.skip) or edges != sorted(edges):
            raise ValueError(
                "skip takes ranges [from, to] with from < to, one behind the other: "
                "[[1000, 1100], [5200, 5300]]"
            )


@config
class Fp16Config:
    """The scale of an fp16 loss, which keeps small gradients from vanishing; DeepSpeed's defaults.

    Attributes:
        initial_scale_power: it begins at two to this.
        scale_window: steps without overflow after which it is doubled.
        hysteresis: the how-many-th overflow first halves it, and each further one; a doubling
            starts the count anew.
        minimum_scale: it is never less; a training that overflows there ends.
    """

    initial_scale_power: Annotated[int, pydantic.Field(ge=0, le=32)] = 16
    scale_window: Positive = 1000
    hysteresis: Positive = 2
    minimum_scale: Positive = 1


_CORRUPTING: Mapping[str, tuple[bool, str]] = {
    "round_robin_gradients": (
        True,
        "its checkpoints say of tensors that they lie where they do not (DeepSpeed 0.19), and are "
        "corrupt on another number of ranks",
    ),
    "elastic_checkpoint": (
        True,
        "its checkpoints keep one count of steps for all tensors, and stage 3 refuses it",
    ),
    "load_from_fp32_weights": (
        False,
        "a resumed run would go on from weights rounded to the training's precision",
    ),
}
"""Settings of ZeRO that spoil a checkpoint or what is resumed from it."""


@config
class DeepSpeedConfig:
    """What DeepSpeed is told beyond what follows from the other sections.

    Attributes:
        zero_stage: what is partitioned over the ranks: nothing, optimizer states, and gradients,
            and parameters.
        offload_optimizer, offload_parameters: where states and weights lie between their uses.
        zero_init: partition parameters as they are made, for models larger than one device.
        fp16: how the loss is scaled where ``train.precision`` is fp16.
        options: merged into DeepSpeed's configuration (``zero_optimization.sub_group_size``, ...).
    """

    zero_stage: Literal[0, 1, 2, 3] = setting(1, resume="recorded")
    offload_optimizer: Offload = setting("none", resume="free")
    offload_parameters: Offload = setting("none", resume="free")
    zero_init: bool = setting(False, resume="free")
    fp16: Fp16Config = setting(Fp16Config(), resume="recorded")
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
            "torch_autocast": "train.precision",
            "checkpoint": "output",
            "datastates_ckpt": "output",
        }
        for key in self.options:
            if key in owned:
                raise ValueError(f"options.{key} follows from {owned[key]}; set that")
        given = self.options.get("zero_optimization")
        zero = given if isinstance(given, dict) else {}
        if "stage" in zero:
            raise ValueError("options.zero_optimization.stage follows from zero_stage; set that")
        places = {"offload_optimizer": "offload_optimizer", "offload_param": "offload_parameters"}
        for key, ours in places.items():
            section = zero.get(key)
            if isinstance(section, dict) and "device" in section:
                raise ValueError(f"options.zero_optimization.{key}.device: set {ours} instead")
        for key, (value, reason) in _CORRUPTING.items():
            if zero.get(key) == value:
                raise ValueError(f"options.zero_optimization.{key}: {reason}; leave it out")


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
