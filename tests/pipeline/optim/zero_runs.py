"""What the ranks of the DeepSpeed tests run: LAMB beside its fp64 reference, case by case.

The reference sees the gradients that DeepSpeed averaged, read through DeepSpeed's public accessors
and not through the layout under test, and holds every tensor whole.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lamb_reference import ReferenceLamb, relative_error
from torch import Tensor, nn
from zero_cases import PATHS, Case
from zero_ranks import run_ranks

from pipeline.optim import Lamb, blocks, build_optimizer
from pipeline.optim.finite import forget

STEPS = 3
OUTCOMES = "outcomes.pt"


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
            assert not any(map(math.isnan, ratios.values())), ratios
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


def run_cases(world_size: int, directory: Path, cases: list[Case]) -> dict[str, Outcome]:
    """All cases in one start of ``world_size`` ranks."""
    run_ranks(_work, world_size, directory, cases)
    outcomes = torch.load(directory / OUTCOMES)
    return {name: Outcome(**values) for name, values in outcomes.items()}


def _work(directory: Path, cases: list[Case]) -> None:
    # Uninitialised memory is filled with NaN: who reads DeepSpeed's padding does so every time.
    torch.use_deterministic_algorithms(True, warn_only=True)
    outcomes = {}
    for case in cases:
        blocks.BLOCK, blocks.ALL_CRUMBS, blocks.COMPILED = PATHS[case.path]
        try:
            outcomes[case.name] = vars(Run(case, directory / case.name).outcome())
        except Exception as error:
            raise RuntimeError(f"in the case {case.name}") from error
    if dist.get_rank() == 0:
        torch.save(outcomes, directory / OUTCOMES)
