"""What the ranks of the DeepSpeed tests run: LAMB beside its fp64 reference, case by case.

The reference sees the gradients that DeepSpeed averaged, read through DeepSpeed's public accessors
and not through the layout under test, and holds every tensor whole.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lamb_reference import ReferenceLamb, relative_error
from torch import Tensor, nn

from pipeline.optim import AdamWConfig, Lamb, LambConfig, OptimizerConfig, build_optimizer
from pipeline.optim.variants import VARIANTS, Preset, Variant

STEPS = 4


@dataclass(frozen=True)
class Case:
    """One configuration of DeepSpeed and LAMB."""

    name: str
    stage: int
    preset: Preset | Literal["adamw"] = "google"
    bf16: bool = False
    clip: float = 0.0
    accumulation: int = 1
    zero: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    reload: bool = False
    naive: bool = False

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
            "bf16": {"enabled": self.bf16},
            "zero_optimization": {
                "stage": self.stage,
                "reduce_bucket_size": 500,
                "stage3_param_persistence_threshold": 0,
                **self.zero,
            },
            **self.more,
        }


FP32_SUMS = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
OFFLOAD = {"offload_optimizer": {"device": "cpu", "pin_memory": False}}

CASES = [
    Case("stage 0", 0),
    Case("stage 0, bf16", 0, bf16=True, clip=0.3),
    Case("stage 1", 1),
    Case("stage 1, paper, clipped, accumulated", 1, "paper", clip=0.3, accumulation=3),
    Case("stage 1, deepspeed's clamp", 1, "deepspeed", clip=0.3),
    Case("stage 1, reloaded", 1, "paper", reload=True),
    Case("stage 1, aligned", 1, zero={"parameter_alignment": True}),
    Case("stage 1, offloaded", 1, zero=OFFLOAD),
    Case("stage 1, bf16", 1, bf16=True),
    Case("stage 1, bf16, fp32 sums", 1, "nvlamb", bf16=True, accumulation=2, more=FP32_SUMS),
    Case("stage 1, bf16, fp32 sums, reloaded", 1, bf16=True, more=FP32_SUMS, reload=True),
    Case("stage 2", 2, "nvlamb"),
    Case("stage 2, bf16, clipped, accumulated", 2, bf16=True, clip=0.3, accumulation=2),
    Case("stage 2, offloaded", 2, clip=0.3, zero=OFFLOAD),
    Case("stage 3", 3),
    Case("stage 3, clipped, accumulated", 3, "paper", clip=0.3, accumulation=3),
    Case("stage 3, small sub-groups", 3, "nvlamb", zero={"sub_group_size": 60}),
    Case("stage 3, bf16", 3, bf16=True, zero={"sub_group_size": 200}),
    Case("stage 3, reloaded", 3, "paper", zero={"sub_group_size": 60}, reload=True),
    Case("stage 3, offloaded", 3, clip=0.3, zero=OFFLOAD),
]
ADAMW_CASES = [
    Case("adamw, stage 0, bf16", 0, "adamw", bf16=True, reload=True),
    Case("adamw, stage 1, bf16, fp32 sums", 1, "adamw", bf16=True, more=FP32_SUMS, reload=True),
    Case("adamw, stage 2, offloaded", 2, "adamw", zero=OFFLOAD, reload=True),
    Case("adamw, stage 3", 3, "adamw", clip=0.3, zero={"sub_group_size": 60}, reload=True),
]
CONTROLS = [Case(f"naive, stage {stage}", stage, naive=True) for stage in (1, 2, 3)]


class Toy(nn.Module):
    """Odd sizes, a tied and a frozen tensor, a sparse gradient, and a head that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(29, 7)
        self.places = nn.Embedding(41, 7)  # only the last rows get a gradient
        self.body = nn.Sequential(nn.Linear(7, 19), nn.Tanh(), nn.Linear(19, 7))
        self.norm = nn.LayerNorm(7)
        self.gain = nn.Parameter(torch.full((1,), 2.0))
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.unused = nn.Linear(7, 5)
        self.decoder = nn.Linear(7, 29)
        self.decoder.weight = self.words.weight

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        places = torch.arange(41 - ids.shape[1], 41).expand_as(ids)
        hidden = self.body(self.words(ids) + self.places(places))
        hidden = self.norm(hidden + self.frozen(hidden)) * self.gain
        logits = self.decoder(hidden).float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return loss + 0 * self.unused(hidden).float().sum()


class NaiveLamb(torch.optim.Optimizer):
    """LAMB that takes the flat tensors it is handed for tensors of the model: the usual fault."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for flat in group["params"]:
                state = self.state[flat]
                m = state.setdefault("exp_avg", torch.zeros_like(flat))
                v = state.setdefault("exp_avg_sq", torch.zeros_like(flat))
                m.mul_(0.9).add_(flat.grad, alpha=0.1)
                v.mul_(0.999).addcmul_(flat.grad, flat.grad, value=0.001)
                u = m / (v.sqrt() + 1e-6) + group["weight_decay"] * flat
                ratio = float(flat.norm() / u.norm()) if group["adapt"] else 1.0
                flat.sub_(u, alpha=group["lr"] * ratio)


@dataclass(frozen=True)
class Outcome:
    """Largest errors over tensors and steps: of the weights, and of the trust ratios."""

    weights: float
    ratios: float
    unused_moved: bool


def run_case(case: Case, directory: Path) -> Outcome:
    """Train a few steps beside the reference, on one of several ranks."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad

    def start() -> tuple[Any, Any]:
        torch.manual_seed(0)
        model = Toy()
        optimizer = build_optimizer(case.optimizer, model)
        if case.naive:
            optimizer = NaiveLamb(optimizer.param_groups)
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=case.deepspeed(), dist_init_required=False
        )
        if isinstance(optimizer, Lamb):
            optimizer.bind(engine)
        return engine, optimizer

    def trained() -> dict[str, nn.Parameter]:
        return {n: p for n, p in engine.module.named_parameters() if p.requires_grad}

    def weights() -> dict[str, Tensor]:
        if hasattr(engine.optimizer, "fp32_groups"):  # stage 0 in bf16
            lower = [p for group in engine.optimizer.fp16_groups for p in group]
            masters = [p for group in engine.optimizer.fp32_groups for p in group]
            by_identity = {id(low): master for low, master in zip(lower, masters, strict=True)}
            return {n: by_identity[id(p)].detach().clone() for n, p in trained().items()}
        if case.stage == 0:
            return {n: p.detach().clone() for n, p in trained().items()}
        return {n: safe_get_full_fp32_param(p).clone() for n, p in trained().items()}

    def gradients() -> dict[str, Tensor]:
        if case.stage == 0:
            return {n: p.grad.float().clone() for n, p in trained().items()}
        return {n: safe_get_full_grad(p).float().clone() for n, p in trained().items()}

    engine, optimizer = start()
    reference = ReferenceLamb(weights(), case.variant, skips_zeros=case.preset != "adamw")
    unused = weights()["unused.weight"]
    worst = worst_ratio = 0.0
    generator = torch.Generator().manual_seed(100 + dist.get_rank())
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (step + 1)
        for micro in range(case.accumulation):
            ids, labels = torch.randint(0, 29, (2, 3, 5), generator=generator)
            loss = engine(ids, labels)
            engine.backward(loss)
            if micro == case.accumulation - 1:
                reference.step(gradients(), lr=0.02 * (step + 1), clip=case.clip)
            engine.step()
        found = weights()
        worst = max(worst, *(relative_error(found[n], reference.weights[n]) for n in found))
        if isinstance(optimizer, Lamb):
            ratios = optimizer.trust_ratios()
            assert set(ratios) == set(reference.ratios), set(ratios) ^ set(reference.ratios)
            errors = [abs(ratios[n] / expected - 1) for n, expected in reference.ratios.items()]
            worst_ratio = max(worst_ratio, *errors)
        if case.reload and step == 1:
            engine.save_checkpoint(str(directory), tag="two")
            engine.destroy()
            engine, optimizer = start()
            engine.load_checkpoint(str(directory), tag="two")
    moved = not torch.equal(weights()["unused.weight"], unused)
    engine.destroy()
    return Outcome(worst, worst_ratio, moved)


def run_rank(rank: int, world_size: int, directory: Path, cases: list[Case]) -> None:
    """One process of a spawn: all cases, the outcomes of rank 0 left in a file."""
    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    torch.set_num_threads(1)
    import deepspeed

    deepspeed.utils.logger.setLevel("ERROR")
    store = f"file://{directory / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    deepspeed.init_distributed("gloo", dist_init_required=False, verbose=False)
    outcomes = {case.name: run_case(case, directory / case.name) for case in cases}
    if rank == 0:
        torch.save({n: vars(o) for n, o in outcomes.items()}, directory / "outcomes.pt")
    dist.barrier()
    dist.destroy_process_group()


def run_cases(world_size: int, directory: Path, cases: list[Case]) -> dict[str, Outcome]:
    """All cases in one spawn of ``world_size`` ranks."""
    arguments = (world_size, directory, cases)
    torch.multiprocessing.spawn(run_rank, args=arguments, nprocs=world_size)
    outcomes = torch.load(directory / "outcomes.pt")
    return {name: Outcome(**values) for name, values in outcomes.items()}
