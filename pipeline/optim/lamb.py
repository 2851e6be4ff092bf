"""LAMB: layer-wise adaptive moments for large batches, exact however the tensors are stored.

For every tensor ``w`` of the model with gradient ``g``, after You et al. 2019, "Large Batch
Optimization for Deep Learning: Training BERT in 76 Minutes", https://arxiv.org/abs/1904.00962,
Algorithm 2:

    m <- beta1 m + (1 - beta1) g                       the first moment, ``exp_avg``
    v <- beta2 v + (1 - beta2) g^2                     the second moment, ``exp_avg_sq``
    u <- m / (sqrt(v) + eps) + weight_decay w          the update
    w <- w - lr (|w| / |u|) u                          scaled by the trust ratio |w| / |u|

The norms are those of whole tensors. ZeRO hands an optimizer flat pieces of many tensors, and an
optimizer that takes those for tensors computes another ratio for every number of ranks. This one
knows where the tensors lie (:mod:`pipeline.optim.zero_layout`), sums squares over its own pieces
and adds the sums of all ranks, three numbers a tensor. What it computes is then LAMB at every ZeRO
stage on any number of ranks, up to rounding:

    optimizer = Lamb(groups)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=...)
    optimizer.bind(engine)          # once, before anything is loaded or stepped

Without DeepSpeed it is used like any optimizer, and nothing is bound.

Deliberate choices:

- A tensor whose gradient is exactly zero on all ranks is left as it is, moments included. Its
  update would be normalised to full length: a head that a step does not use would wander.
- Gradient clipping is the engine's; it happens before the step.
- Sums of squares are fp32 within blocks of 1024 elements and fp64 across them. torch's fp32 norm
  of a 23M-element embedding is off by 1e-3 on CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pipeline.optim.variants import Clamp
from pipeline.optim.zero_layout import Fragment, Partition, find_partitions, whole

BLOCK = 1024
"""Elements whose squares are added in fp32."""

CPU_PIECE = 256 * BLOCK
"""Elements worked on at once on a CPU, so that all passes but the first find them in its cache."""


@dataclass
class _Proposal:
    """A step of one flat tensor, complete but for the trust ratios.

    Attributes:
        partition: the flat tensor and the tensors in it.
        group: its parameter group.
        rule: of this step.
        sums: by tensor: squares of ``w``, squares of ``u``, pieces whose gradient is not zero.
        held_back: new moments of fragments without a gradient on this rank. They count only if
            another rank has one.
    """

    partition: Partition
    group: dict[str, Any]
    rule: _Rule
    sums: Float[Tensor, "3 tensors"]
    held_back: list[tuple[Fragment, Tensor, Tensor]] = field(default_factory=list)


class Lamb(torch.optim.Optimizer):
    """LAMB on ordinary tensors, or under DeepSpeed once :meth:`bind` was called.

    State of a flat tensor: ``exp_avg`` and ``exp_avg_sq`` in its shape, and ``step``, an int, which
    its group repeats. DeepSpeed saves and loads it like any optimizer's; the layout is no part of
    it and stays valid, so nothing is bound again after a checkpoint was loaded.

    Args:
        params: tensors, named tensors, or groups of them, as for any optimizer. A group may have
            its own ``lr``, ``weight_decay`` and ``adapt``.
        lr: learning rate.
        betas: decay rates of the moments.
        eps: added to the root of the second moment.
        weight_decay: in units of the weight, before the trust ratio.
        adapt: scale updates by the trust ratio; False is Adam with decoupled decay.
        bias_correction: see :class:`Variant`.
        clamp: see :class:`Variant`.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.0,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        adapt: bool = True,
        bias_correction: bool = False,
        clamp: Clamp | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "adapt": adapt,
            "bias_correction": bias_correction,
            "clamp": clamp,
            "step": 0,
        }
        super().__init__(params, defaults)
        self._partitions: dict[Tensor, Partition] = {}
        for number, group in enumerate(self.param_groups):
            unnamed = [f"{number}.{index}" for index in range(len(group["params"]))]
            names = group.pop("param_names", unnamed)  # stale once DeepSpeed changed the params
            for name, tensor in zip(names, group["params"], strict=True):
                self._partitions[tensor] = whole(tensor, name)
        self._names = {tensor: part.names[0] for tensor, part in self._partitions.items()}
        self._exchange_device: torch.device | None = None
        self._trust_ratios: dict[str, float] = {}

    def bind(self, engine: Any) -> None:
        """Learn where DeepSpeed keeps the tensors. Every rank calls it once, after ``initialize``.

        Args:
            engine: what ``deepspeed.initialize`` returned for this optimizer.

        Raises:
            ValueError: the layout is unknown, or not what the values in it say.
        """
        self._exchange_device = torch.device(engine.device)
        if engine.optimizer is not self:
            found = find_partitions(engine.optimizer, self._names, self._exchange_device)
            self._partitions = {partition.flat: partition for partition in found}
        for flat in self._partitions:
            self._state(flat)

    def trust_ratios(self) -> dict[str, float]:
        """Trust ratios of the last step by name, of the tensors that are adapted and moved."""
        return dict(self._trust_ratios)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step. All ranks take part, also one that holds no piece of any tensor.

        Raises:
            RuntimeError: handed tensors of DeepSpeed's that :meth:`bind` has not seen.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        proposals = [
            self._propose(partition, group)
            for group in self.param_groups
            for partition in self._known(group["params"])
        ]
        self._add_up(proposals)
        for proposal in proposals:
            self._apply(proposal)
        return loss

    def _known(self, tensors: Iterable[Tensor]) -> Iterator[Partition]:
        for flat in tensors:
            if flat in self._partitions:
                yield self._partitions[flat]
            # At stage 0 in bf16 DeepSpeed steps with zero gradients within `initialize`.
            elif self._exchange_device is not None or (
                flat.grad is not None and bool(flat.grad.any())
            ):
                raise RuntimeError(
                    "LAMB was handed a tensor that it does not know; under DeepSpeed call "
                    "optimizer.bind(engine) once, right after deepspeed.initialize"
                )

    def _propose(self, partition: Partition, group: dict[str, Any]) -> _Proposal:
        """Moments and updates of this rank's fragments, and their sums of squares."""
        state = self._state(partition.flat)
        weight, gradient = partition.flat.view(-1), _flat_gradient(partition.flat)
        exp_avg, exp_avg_sq = state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
        group["step"] = state["step"] = int(state["step"]) + 1
        sums = weight.new_zeros(3, len(partition.names), dtype=torch.float64)
        proposal = _Proposal(partition, group, _Rule.of(group), sums)
        flags = _nonzero(gradient, partition.fragments)
        scratch = _scratch(partition)
        for fragment, nonzero in zip(partition.fragments, flags, strict=True):
            mean, square = exp_avg[fragment.span], exp_avg_sq[fragment.span]
            if not nonzero:
                mean, square = mean.clone(), square.clone()
                proposal.held_back.append((fragment, mean, square))
            squares = []
            stretch = weight[fragment.span], gradient[fragment.span], mean, square
            for w, g, m, v in _pieces(*stretch):
                proposal.rule.advance(m, v, g)
                u = proposal.rule.update(w, m, v, out=scratch[: w.numel()])
                squares += [sum_of_squares(w), sum_of_squares(u)]
            sums[:2, fragment.tensor] += torch.stack(squares).view(-1, 2).sum(0)
            sums[2, fragment.tensor] += nonzero
        return proposal

    def _add_up(self, proposals: Iterable[_Proposal]) -> None:
        """Replace every proposal's sums by those of all ranks: one all-reduce a process group."""
        by_group: dict[dist.ProcessGroup, list[_Proposal]] = {}
        for proposal in proposals:
            if proposal.partition.process_group is not None:
                by_group.setdefault(proposal.partition.process_group, []).append(proposal)
        for process_group, members in by_group.items():
            table = torch.cat([member.sums for member in members], dim=1).to(self._exchange_device)
            dist.all_reduce(table, group=process_group)
            start = 0
            for member in members:
                member.sums = table[:, start : start + len(member.partition.names)]
                start += len(member.partition.names)

    def _apply(self, proposal: _Proposal) -> None:
        """Move the weights by the update, scaled by the trust ratios."""
        partition, group = proposal.partition, proposal.group
        weight_squares, update_squares, moved = proposal.sums.tolist()
        ratios = [1.0] * len(partition.names)
        for number, name in enumerate(partition.names):
            self._trust_ratios.pop(name, None)
            if group["adapt"] and moved[number]:
                ratios[number] = trust_ratio(
                    math.sqrt(weight_squares[number]),
                    math.sqrt(update_squares[number]),
                    group["clamp"],
                )
                self._trust_ratios[name] = ratios[number]
        state = self.state[partition.flat]
        weight = partition.flat.view(-1)
        exp_avg, exp_avg_sq = state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
        for fragment, mean, square in proposal.held_back:
            if moved[fragment.tensor]:
                exp_avg[fragment.span], exp_avg_sq[fragment.span] = mean, square
        scratch = _scratch(partition)
        for fragment in partition.fragments:
            if moved[fragment.tensor]:
                step_size = float(group["lr"]) * ratios[fragment.tensor]
                for w, m, v in _pieces(*(t[fragment.span] for t in (weight, exp_avg, exp_avg_sq))):
                    u = proposal.rule.update(w, m, v, out=scratch[: w.numel()])
                    w.sub_(u, alpha=step_size)

    def _state(self, flat: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[flat]
        if "exp_avg" not in state:
            if flat.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"LAMB needs weights in fp32 and was handed {flat.dtype}; keep the model in "
                    "fp32 and compute in lower precision by autocast or DeepSpeed's bf16"
                )
            if not flat.is_contiguous():
                raise ValueError("LAMB needs contiguous tensors; call .contiguous() on the weights")
            state.setdefault("step", 0)
            state["exp_avg"] = torch.zeros_like(flat, requires_grad=False)
            state["exp_avg_sq"] = torch.zeros_like(flat, requires_grad=False)
        return state


@dataclass(frozen=True)
class _Rule:
    """The elementwise part of LAMB, with the bias correction of one step folded in.

    m / c1 / (sqrt(v / c2) + eps) = (sqrt(c2) / c1) * m / (sqrt(v) + sqrt(c2) eps)
    """

    betas: tuple[float, float]
    scale: float
    eps: float
    weight_decay: float

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> _Rule:
        beta1, beta2 = group["betas"]
        step = group["step"]
        correction1 = 1 - beta1**step if group["bias_correction"] else 1.0
        correction2 = 1 - beta2**step if group["bias_correction"] else 1.0
        return cls(
            betas=(beta1, beta2),
            scale=math.sqrt(correction2) / correction1,
            eps=math.sqrt(correction2) * group["eps"],
            weight_decay=group["weight_decay"],
        )

    def advance(
        self,
        exp_avg: Float[Tensor, " elements"],
        exp_avg_sq: Float[Tensor, " elements"],
        gradient: Float[Tensor, " elements"],
    ) -> None:
        """Let the gradient into the moments, in place."""
        beta1, beta2 = self.betas
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)

    def update(
        self,
        weight: Float[Tensor, " elements"],
        exp_avg: Float[Tensor, " elements"],
        exp_avg_sq: Float[Tensor, " elements"],
        *,
        out: Float[Tensor, " elements"],
    ) -> Float[Tensor, " elements"]:
        """``u``. It is cheaper to compute twice than to keep for a whole flat tensor."""
        torch.sqrt(exp_avg_sq, out=out).add_(self.eps)
        torch.div(exp_avg, out, out=out)
        if self.scale != 1:
            out.mul_(self.scale)
        return out.add_(weight, alpha=self.weight_decay) if self.weight_decay else out


def trust_ratio(weight_norm: float, update_norm: float, clamp: Clamp | None = None) -> float:
    """``|w| / |u|``, within the bounds if there are any; 1 where either norm is 0."""
    if weight_norm == 0 or update_norm == 0:
        return 1.0
    ratio = weight_norm / update_norm
    return ratio if clamp is None else min(max(ratio, clamp[0]), clamp[1])


def sum_of_squares(values: Float[Tensor, " elements"]) -> Float[Tensor, ""]:
    """In fp64, at the speed of fp32; relative error 2e-8 on 262,144 normal fp32 values."""
    full = values.numel() // BLOCK * BLOCK
    norms = torch.linalg.vector_norm(values[:full].view(-1, BLOCK), dim=1).double()
    total: Tensor = norms.square().sum() + values[full:].double().square().sum()
    return total


def _flat_gradient(flat: Tensor) -> Float[Tensor, " elements"]:
    """The gradient; zeros where there is none."""
    if flat.grad is None:
        return flat.new_zeros(()).expand(flat.numel())
    return flat.grad.reshape(-1)


def _nonzero(gradient: Float[Tensor, " elements"], fragments: Iterable[Fragment]) -> list[bool]:
    """Whether a fragment has any gradient (not a number is one), in one read of the device."""
    extremes = [torch.stack(gradient[fragment.span].aminmax()) for fragment in fragments]
    return (torch.stack(extremes) != 0).any(dim=1).tolist() if extremes else []


def _pieces(*tensors: Float[Tensor, " elements"]) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same stretch of all tensors, of a length that suits the device."""
    numel = tensors[0].numel()
    length = _piece_length(tensors[0].device, numel)
    for start in range(0, numel, length):
        yield tuple(tensor[start : start + length] for tensor in tensors)


def _scratch(partition: Partition) -> Float[Tensor, " elements"]:
    """Room for the update of a piece."""
    longest = max((fragment.length for fragment in partition.fragments), default=0)
    return partition.flat.new_empty(_piece_length(partition.flat.device, longest))


def _piece_length(device: torch.device, numel: int) -> int:
    return min(numel, CPU_PIECE) if device.type == "cpu" else numel
