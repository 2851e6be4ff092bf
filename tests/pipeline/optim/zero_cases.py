"""What the ranks of the DeepSpeed tests run: LAMB beside its fp64 reference, case by case.

The reference sees the gradients that DeepSpeed averaged, read through DeepSpeed's public accessors
and not through the layout under test, and holds every tensor whole.
"""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from lamb_reference import ReferenceLamb, relative_error
from pairwise import pairwise_cover
from torch import Tensor, nn

from pipeline.optim import AdamWConfig, Lamb, LambConfig, OptimizerConfig, blocks, build_optimizer
from pipeline.optim.finite import forget
from pipeline.optim.variants import VARIANTS, Preset, Variant
from pipeline.training.start import leave_process_group

STEPS = 3

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


class Toy(nn.Module):
    """Odd sizes, a frozen tensor, sparse gradients, a head that is never used, and as asked for:
    a tied tensor, a layer that is used twice, a tensor of one element, and one that is larger than
    all others together."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.words = nn.Embedding(29, 7)
        self.places = nn.Embedding(171 if case.split else 41, 7)  # only the last get a gradient
        self.body = nn.Sequential(nn.Linear(7, 19), nn.Tanh(), nn.Linear(19, 7))
        self.norm = nn.LayerNorm(7)
        self.frozen = nn.Linear(7, 7).requires_grad_(False)
        self.unused = nn.Linear(7, 5)
        self.decoder = nn.Linear(7, 29)
        if case.single:
            self.gain = nn.Parameter(torch.full((1,), 2.0))
        if case.tied:
            self.decoder.weight = self.words.weight
        self.repeats = 2 if case.shared else 1

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        last = self.places.num_embeddings
        places = torch.arange(last - ids.shape[1], last).expand_as(ids)
        hidden = self.words(ids) + self.places(places)
        for _ in range(self.repeats):
            hidden = self.body(hidden)
        hidden = self.norm(hidden + self.frozen(hidden)) * getattr(self, "gain", 1.0)
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
    """What happened on all ranks.

    Attributes:
        weights, ratios: the largest error, of a tensor after a step.
        unused_stayed: a head without gradient kept weights and moments, bit for bit.
        poison_discarded: so did everything where one rank had a gradient that is no number, the
            optimizer said so, and the next step was right.
    """

    weights: float
    ratios: float
    unused_stayed: bool
    poison_discarded: bool


class Run:
    """A case on one rank."""

    def __init__(self, case: Case, directory: Path) -> None:
        self.case, self.directory = case, directory
        self.start()
        if isinstance(self.optimizer, Lamb):
            self.check_fragments()
        self.reference = ReferenceLamb(
            self.weights(), case.variant, skips_zeros=case.preset != "adamw"
        )
        self.generator = torch.Generator().manual_seed(100 + dist.get_rank())
        self.number = 0
        self.worst = self.worst_ratio = 0.0

    def start(self) -> None:
        import deepspeed

        torch.manual_seed(0)
        config = self.case.deepspeed()
        partitioned = deepspeed.zero.Init(config_dict_or_path=config)
        with partitioned if self.case.zero_init else nullcontext():
            model = Toy(self.case)
        self.optimizer: Any = build_optimizer(self.case.optimizer, model)
        if self.case.naive:
            self.optimizer = NaiveLamb(self.optimizer.param_groups)
        self.engine, *_ = deepspeed.initialize(
            model=model, optimizer=self.optimizer, config=config, dist_init_required=False
        )
        if not self.case.naive:
            self.optimizer.bind(self.engine)

    def check_fragments(self) -> None:
        """They say where in a tensor they begin; a split tensor has some on three ranks."""
        weights, held = self.weights(), 0
        for partition in self.optimizer._partitions.values():
            for fragment in partition.fragments:
                name, stop = partition.names[fragment.tensor], fragment.offset + fragment.length
                expected = weights[name].view(-1)[fragment.offset : stop]
                assert torch.equal(partition.flat.detach().view(-1)[fragment.span], expected), name
                held += name == "places.weight"
        counts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(counts, held)
        assert sum(count > 0 for count in counts) >= (3 if self.case.split else 1), counts

    def trained(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self.engine.module.named_parameters() if p.requires_grad}

    def masters(self) -> dict[str, Tensor]:
        """At stage 0: what the optimizer trains."""
        wrapper = self.engine.optimizer
        if not hasattr(wrapper, "fp32_groups"):
            return dict(self.trained())
        lower = [p for group in wrapper.fp16_groups for p in group]
        copies = [p for group in wrapper.fp32_groups for p in group]
        by_identity = {id(low): copy for low, copy in zip(lower, copies, strict=True)}
        return {name: by_identity[id(p)] for name, p in self.trained().items()}

    def weights(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        if self.case.stage == 0:
            return {n: p.detach().clone() for n, p in self.masters().items()}
        return {n: safe_get_full_fp32_param(p).clone() for n, p in self.trained().items()}

    def gradients(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_grad

        if self.case.stage == 0:
            return {n: p.grad.float().clone() for n, p in self.trained().items()}
        return {n: safe_get_full_grad(p).float().clone() for n, p in self.trained().items()}

    def moments(self, name: str) -> list[Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        keys = ("exp_avg", "exp_avg_sq")
        if self.case.stage == 0:
            return [self.optimizer.state[self.masters()[name]][key] for key in keys]
        return [safe_get_full_optimizer_state(self.trained()[name], key) for key in keys]

    def everything(self) -> list[Tensor]:
        """All memory of this rank that a step may change, as bits."""
        flats = [flat for flat in self.optimizer.state if isinstance(flat, Tensor)]
        moments = [
            self.optimizer.state[flat][k] for flat in flats for k in ("exp_avg", "exp_avg_sq")
        ]
        return [t.detach().clone().view(torch.int32) for t in (*flats, *moments)]

    def step(self, *, poison: bool = False) -> None:
        """Beside the reference; or, poisoned on one rank, by itself."""
        rate = 0.02 * (self.number + 1)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for micro in range(self.case.accumulation):
            ids, labels = torch.randint(0, 29, (2, 3, 5), generator=self.generator)
            loss = self.engine(ids, labels)
            if poison and micro == 0 and dist.get_rank() == dist.get_world_size() - 1:
                loss = loss * torch.nan
            self.engine.backward(loss)
            if not poison and micro == self.case.accumulation - 1:
                self.reference.step(self.gradients(), lr=rate, clip=self.case.clip)
            self.engine.step()
        if not poison:
            self.compare()

    def compare(self) -> None:
        found = self.weights()
        for name, expected in self.reference.weights.items():
            self.worst = max(self.worst, relative_error(found[name], expected))
        if isinstance(self.optimizer, Lamb):
            ratios = self.optimizer.trust_ratios()
            assert set(ratios) == set(self.reference.ratios), set(ratios) ^ set(
                self.reference.ratios
            )
            errors = [abs(ratios[n] / e - 1) for n, e in self.reference.ratios.items()]
            self.worst_ratio = max(self.worst_ratio, *errors)
            steps = self.optimizer.tensor_steps()
            assert steps == self.reference.steps, (steps, self.reference.steps)

    def outcome(self) -> Outcome:
        unused = self.weights()["unused.weight"]
        for self.number in range(STEPS):
            self.step()
            if self.case.reload and self.number == 1:
                self.restart()
        stayed = torch.equal(self.weights()["unused.weight"], unused)
        if isinstance(self.optimizer, Lamb):
            stayed &= not any(moment.any() for moment in self.moments("unused.weight"))
        discarded = True
        if not self.case.naive:
            before = self.everything()
            self.step(poison=True)
            discarded = not self.optimizer.applied
            discarded &= all(map(torch.equal, before, self.everything()))
            forget(self.engine.optimizer)
            self.step()
            discarded &= self.optimizer.applied
        self.engine.destroy()
        mine = Outcome(self.worst, self.worst_ratio, stayed, discarded)
        said: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(said, mine)
        return Outcome(
            max(outcome.weights for outcome in said),
            max(outcome.ratios for outcome in said),
            all(outcome.unused_stayed for outcome in said),
            all(outcome.poison_discarded for outcome in said),
        )

    def restart(self) -> None:
        lamb = isinstance(self.optimizer, Lamb)
        steps = self.optimizer.tensor_steps() if lamb else {}
        self.engine.save_checkpoint(str(self.directory), tag="two")
        self.engine.destroy()
        self.start()
        self.engine.load_checkpoint(str(self.directory), tag="two")
        if lamb:
            self.optimizer.restore_tensor_steps(steps)


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
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    store = f"file://{directory / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    deepspeed.init_distributed("gloo", dist_init_required=False, verbose=False)
    outcomes = {}
    for case in cases:
        blocks.BLOCK, blocks.ALL_CRUMBS, blocks.COMPILED = PATHS[case.path]
        try:
            outcomes[case.name] = Run(case, directory / case.name).outcome()
        except Exception as error:
            raise RuntimeError(f"in the case {case.name}") from error
    if rank == 0:
        torch.save(
            {name: vars(outcome) for name, outcome in outcomes.items()}, directory / "outcomes.pt"
        )
    dist.barrier()
    leave_process_group()


def run_cases(world_size: int, directory: Path, cases: list[Case]) -> dict[str, Outcome]:
    """All cases in one spawn of ``world_size`` ranks."""
    arguments = (world_size, directory, cases)
    torch.multiprocessing.spawn(run_rank, args=arguments, nprocs=world_size)
    outcomes = torch.load(directory / "outcomes.pt")
    return {name: Outcome(**values) for name, values in outcomes.items()}
