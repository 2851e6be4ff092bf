"""Configurations of DeepSpeed, LAMB and model: all 43 of a list, and a cover of every pair."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pairwise import pairwise_cover

from pipeline.optim import AdamWConfig, LambConfig, OptimizerConfig
from pipeline.optim.variants import VARIANTS, Preset, Variant

FP32_SUMS = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": {"enabled": True}},
    "bf16, fp32 sums": {"bf16": {"enabled": True}, **FP32_SUMS},
    "autocast": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
}
OFFLOAD = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}
SUB_GROUPS = {"sub_group_size": 60}
PATHS = {"crumbs": (1024, 65536, 2**24), "rows": (16, 0, 2**24), "compiled": (16, 0, 0)}
"""What of :mod:`pipeline.optim.blocks` a case runs through: BLOCK, ALL_CRUMBS, COMPILED."""


@dataclass(frozen=True)
class Case:
    """One configuration of DeepSpeed, LAMB and model."""

    stage: int
    ranks: int = 2
    precision: str = "fp32"
    preset: Preset | Literal["adamw"] = "google"
    clip: float = 0.0
    accumulation: int = 1
    offload: bool = False
    sub_groups: bool = False
    tied: bool = True
    shared: bool = True
    single: bool = True
    split: bool = False
    path: str = "crumbs"
    zero: Mapping[str, Any] = field(default_factory=dict)
    reload: bool = False
    zero_init: bool = False
    naive: bool = False

    @property
    def name(self) -> str:
        said = [f"stage {self.stage}, {self.ranks} ranks, {self.precision}, {self.preset}"]
        if self.clip:
            said.append("clipped")
        if self.accumulation > 1:
            said.append(f"{self.accumulation} micro-batches")
        flags = ("offload", "sub_groups", "tied", "shared", "single", "split", "reload")
        said += [flag for flag in (*flags, "zero_init", "naive") if getattr(self, flag)]
        return ", ".join([*said, self.path, *self.zero])

    @property
    def optimizer(self) -> OptimizerConfig:
        if self.preset == "adamw":
            return AdamWConfig(kind="adamw", bias_correction=False)
        return LambConfig(kind="lamb", preset=self.preset)

    @property
    def variant(self) -> Variant:
        if self.preset == "adamw":  # all trust ratios 1
            return Variant(bias_correction=False, clamp=(1.0, 1.0), adapt_without_decay=True)
        return VARIANTS[self.preset]

    def deepspeed(self) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 3,
            "gradient_accumulation_steps": self.accumulation,
            "gradient_clipping": self.clip,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": 500,
                "stage3_param_persistence_threshold": 0,
                **(OFFLOAD if self.offload else {}),
                **(SUB_GROUPS if self.sub_groups else {}),
                **self.zero,
            },
            **PRECISIONS[self.precision],
        }


def listed() -> list[Case]:
    """43 configurations: every stage and precision, plain and in full use, and what else is."""
    known = [
        Case(stage, precision=precision, preset=preset, clip=clip, accumulation=accumulation)
        for stage in range(4)
        for precision in PRECISIONS
        if stage_0_sums_in_the_precision_of_the_model({"stage": stage, "precision": precision})
        for preset, clip, accumulation in (("google", 0.0, 1), ("paper", 0.3, 4))
    ]
    known += [
        Case(stage, precision=precision, preset="nvlamb", clip=0.3, offload=True)
        for stage in (1, 2, 3)
        for precision in ("fp32", "bf16", "autocast")
    ]
    return known + [Case(3, precision=p, preset="apex", sub_groups=True) for p in PRECISIONS]


VALUES: Mapping[str, Any] = {
    "stage": (0, 1, 2, 3),
    "ranks": (1, 2, 3, 4),
    "precision": tuple(PRECISIONS),
    "preset": tuple(VARIANTS),
    "clip": (0.0, 0.3),
    "accumulation": (1, 4),
    "offload": (False, True),
    "sub_groups": (False, True),
    "tied": (False, True),
    "shared": (False, True),
    "single": (False, True),
    "split": (False, True),
    "path": tuple(PATHS),
}


def stage_0_has_nothing_to_offload(choice: dict[str, Any]) -> bool:
    return choice["stage"] > 0 or not choice["offload"]


def only_stage_3_has_sub_groups(choice: dict[str, Any]) -> bool:
    return choice["stage"] == 3 or not choice["sub_groups"]


def only_three_ranks_can_share_a_tensor(choice: dict[str, Any]) -> bool:
    return choice["ranks"] >= 3 or not choice["split"]


def only_partitioned_tensors_are_split(choice: dict[str, Any]) -> bool:
    return choice["stage"] > 0 or not choice["split"]


def stage_0_sums_in_the_precision_of_the_model(choice: dict[str, Any]) -> bool:
    return choice["stage"] > 0 or choice["precision"] != "bf16, fp32 sums"


RULES = [
    stage_0_sums_in_the_precision_of_the_model,
    stage_0_has_nothing_to_offload,
    only_stage_3_has_sub_groups,
    only_three_ranks_can_share_a_tensor,
    only_partitioned_tensors_are_split,
]
COVER = [Case(**choice) for choice in pairwise_cover(VALUES, RULES)]
OTHERS = [
    Case(1, preset="paper", reload=True),
    Case(1, precision="bf16, fp32 sums", reload=True),
    Case(3, preset="paper", sub_groups=True, reload=True),
    Case(1, zero={"parameter_alignment": True}),
    Case(3, preset="deepspeed", clip=0.3, offload=True, sub_groups=True),
    Case(3, zero_init=True),
    Case(3, ranks=3, zero_init=True, precision="bf16", preset="paper", split=True),
]
ADAMW = [
    Case(0, preset="adamw", precision="bf16", reload=True),
    Case(1, preset="adamw", precision="bf16, fp32 sums", reload=True),
    Case(2, preset="adamw", offload=True, reload=True),
    Case(3, preset="adamw", clip=0.3, sub_groups=True, reload=True),
]
CONTROLS = [Case(stage, naive=True) for stage in (1, 2, 3)]
