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

CPU_PIECE = 64 * BLOCK
"""Elements worked on at once on a CPU, so that every pass but the first finds them in its cache."""


@dataclass
class _Proposal:
    """A step of one flat tensor, complete but for the trust ratios.

    Attributes:
        partition: the flat tensor and the tensors in it.
        group: its parameter group.
        update: ``u``, laid out as the flat tensor.
        sums: by tensor: squares of ``w``, squares of ``u``, pieces whose gradient is not zero.
        held_back: new moments of fragments without a gradient on this rank. They count only if
            another rank has one.
    """

    partition: Partition
    group: dict[str, Any]
    update: Float[Tensor, " elements"]
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
        group["step"] = state["step"] = state["step"] + 1
        rule = _Rule.of(group)
        sums = weight.new_zeros(3, len(partition.names), dtype=torch.float64)
        proposal = _Proposal(partition, group, torch.empty_like(weight), sums)
        for fragment, nonzero in zip(
            partition.fragments, _nonzero(gradient, partition.fragments), strict=True
        ):
            mean, square = exp_avg[fragment.span], exp_avg_sq[fragment.span]
            if not nonzero:
                mean, square = mean.clone(), square.clone()
                proposal.held_back.append((fragment, mean, square))
            tensors = [
                weight[fragment.span],
                gradient[fragment.span],
                mean,
                square,
                proposal.update[fragment.span],
            ]
            for w, g, m, v, u in zip(*map(_pieces, tensors), strict=True):
                rule.update(w, g, m, v, out=u)
                sums[0, fragment.tensor] += sum_of_squares(w)
                sums[1, fragment.tensor] += sum_of_squares(u)
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
        weight = partition.flat.view(-1)
        for fragment in partition.fragments:
            if moved[fragment.tensor]:
                step_size = float(group["lr"]) * ratios[fragment.tensor]
                weight[fragment.span].sub_(proposal.update[fragment.span], alpha=step_size)
        state = self.state[partition.flat]
        for fragment, mean, square in proposal.held_back:
            if moved[fragment.tensor]:
                state["exp_avg"].view(-1)[fragment.span] = mean
                state["exp_avg_sq"].view(-1)[fragment.span] = square

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

    def update(
        self,
        weight: Float[Tensor, " elements"],
        gradient: Float[Tensor, " elements"],
        exp_avg: Float[Tensor, " elements"],
        exp_avg_sq: Float[Tensor, " elements"],
        *,
        out: Float[Tensor, " elements"],
    ) -> None:
        """Advance the moments in place and write the update."""
        beta1, beta2 = self.betas
        exp_avg.lerp_(gradient, 1 - beta1)
        exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        torch.sqrt(exp_avg_sq, out=out).add_(self.eps)
        torch.div(exp_avg, out, out=out).mul_(self.scale).add_(weight, alpha=self.weight_decay)


def trust_ratio(weight_norm: float, update_norm: float, clamp: Clamp | None = None) -> float:
    """``|w| / |u|``, within the bounds if there are any; 1 where either norm is 0."""
    if weight_norm == 0 or update_norm == 0:
        return 1.0
    ratio = weight_norm / update_norm
    return ratio if clamp is None else min(max(ratio, clamp[0]), clamp[1])


def sum_of_squares(values: Float[Tensor, " elements"]) -> Float[Tensor, ""]:
    """In fp64; relative error below 1e-8 on 23M normal fp32 values, at the speed of fp32."""
    full = values.numel() // BLOCK * BLOCK
    blocks = values[:full].view(-1, BLOCK)
    total: Tensor = torch.linalg.vecdot(blocks, blocks).sum(dtype=torch.float64)
    return total + torch.dot(values[full:], values[full:])


def _flat_gradient(flat: Tensor) -> Float[Tensor, " elements"]:
    """The gradient; zeros where there is none."""
    if flat.grad is None:
        return flat.new_zeros(()).expand(flat.numel())
    return flat.grad.reshape(-1)


def _nonzero(gradient: Float[Tensor, " elements"], fragments: Iterable[Fragment]) -> list[bool]:
    """Whether a fragment has any gradient (not a number is one), in one read of the device."""
    largest = [gradient[fragment.span].abs().amax() for fragment in fragments]
    return [value != 0 for value in torch.stack(largest).tolist()] if largest else []


def _pieces(values: Float[Tensor, " elements"]) -> list[Tensor]:
    """Views of a length that suits the device."""
    length = CPU_PIECE if values.device.type == "cpu" else values.numel()
    return [values[start : start + length] for start in range(0, values.numel(), length)]
