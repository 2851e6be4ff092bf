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
(:mod:`pipeline.optim.blocks`) and adds the sums of all ranks, four numbers a tensor. What it
computes is then LAMB at every ZeRO stage on any number of ranks, up to rounding:

    optimizer = Lamb(groups)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=...)
    optimizer.bind(engine)          # once, before anything is loaded or stepped

Without DeepSpeed it is used like any optimizer, and nothing is bound.

A step reads the memory twice. First it computes ``u`` for its norms alone and changes nothing;
then, when the sums of all ranks are known, it computes ``u`` again and changes everything. Nothing
is kept in between, a tensor that must not move was never touched, and no number of ours leaves a
GPU. Two memory passes with 8 reads and 3 writes an element compare with AdamW's 4 and 3.

Deliberate choices:

- A tensor whose gradient is exactly zero on all ranks is left as it is, moments and count of steps
  included. Its update would be normalised to full length: a head that a step does not use would
  wander. Bias correction therefore counts by tensor.
- Where a gradient is not finite, nothing changes at all (:mod:`pipeline.optim.finite`).
- Gradient clipping is the engine's; it happens before the step.
- Sums of squares are fp32 within rows of 1024 elements and fp64 across them. torch's fp32 norm of
  a 23M-element embedding is off by 1e-3 on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pipeline.optim.blocks import Blocks, BlockTable
from pipeline.optim.finite import discarded, guarding, is_phantom
from pipeline.optim.lamb_rule import Settings, apply, squares, trust_ratio
from pipeline.optim.variants import Clamp
from pipeline.optim.zero_layout import Partition, find_partitions, whole


class Norms(NamedTuple):
    """Of a whole tensor in one step, before it moved: ``|w|`` and ``|u|``."""

    weight: float
    update: float


@dataclass
class _Record:
    """What is known of the tensors that are stepped together, by tensor, on their device.

    Attributes:
        table: where they lie.
        exchanges: process groups, and the tensors of which their ranks hold pieces.
        sat_out: steps of the group in which a tensor did not move.
        moved, adapted: in the last step; what is adapted has moved.
        norms, ratios: of the last step.
    """

    table: BlockTable
    exchanges: list[tuple[dist.ProcessGroup, Int[Tensor, " shared"]]]
    sat_out: Int[Tensor, " tensors"]
    moved: Bool[Tensor, " tensors"]
    adapted: Bool[Tensor, " tensors"]
    norms: Float[Tensor, "tensors 2"]
    ratios: Float[Tensor, " tensors"]

    @classmethod
    def of(cls, partitions: Sequence[Partition], sat_out: Mapping[str, int]) -> _Record:
        table = BlockTable(partitions)
        device = partitions[0].flat.device
        shared: dict[dist.ProcessGroup, list[int]] = {}
        first = 0
        for partition in partitions:
            numbers = range(first, first + len(partition.names))
            if partition.process_group is not None:
                shared.setdefault(partition.process_group, []).extend(numbers)
            first = numbers.stop
        none = torch.zeros(first, dtype=torch.bool, device=device)
        return cls(
            table,
            [(group, torch.tensor(numbers, device=device)) for group, numbers in shared.items()],
            torch.tensor([sat_out.get(name, 0) for name in table.names], device=device),
            moved=none,
            adapted=none,
            norms=torch.zeros(first, 2, dtype=torch.float64, device=device),
            ratios=torch.ones(first, dtype=torch.float64, device=device),
        )


class Lamb(torch.optim.Optimizer):
    """LAMB on ordinary tensors, or under DeepSpeed once :meth:`bind` was called.

    State of a flat tensor: ``exp_avg`` and ``exp_avg_sq`` in its shape, and ``step``, an int, which
    its group repeats. DeepSpeed saves and loads it like any optimizer's; the layout is no part of
    it and stays valid, so nothing is bound again after a checkpoint was loaded. What is not in it
    is how many steps single tensors sat out: see :meth:`tensor_steps`.

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
        self._wrapper: Any = None
        self._device: torch.device | None = None
        self._finite = torch.tensor(True)
        self._records: dict[tuple[Tensor, ...], _Record] = {}
        self._sat_out: dict[str, int] = {}

    def bind(self, engine: Any) -> None:
        """Learn where DeepSpeed keeps the tensors. Every rank calls it once, after ``initialize``.

        Args:
            engine: what ``deepspeed.initialize`` returned for this optimizer.

        Raises:
            ValueError: the layout is unknown, or not what the values in it say.
        """
        self._device = torch.device(engine.device)
        if engine.optimizer is not self:
            self._wrapper = guarding(engine.optimizer)
            found = find_partitions(self._wrapper, self._names, self._device)
            self._partitions = {partition.flat: partition for partition in found}
        for flat in self._partitions:
            self._state(flat)

    @property
    def applied(self) -> bool:
        """Whether the last step, if there was one, changed anything. Waits for a GPU."""
        return bool(self._finite) and not discarded(self._wrapper)

    def trust_ratios(self) -> dict[str, float]:
        """Trust ratios of the last step by name, of the tensors that are adapted and moved."""
        return {
            name: ratio
            for record in self._last_records()
            for name, ratio, adapted in zip(
                record.table.names,
                record.ratios.tolist(),
                record.adapted.tolist(),
                strict=True,
            )
            if adapted
        }

    def norms(self) -> dict[str, Norms]:
        """Norms in the last step by name, of the tensors that moved."""
        return {
            name: Norms(*norms)
            for record in self._last_records()
            for name, norms, moved in zip(
                record.table.names, record.norms.tolist(), record.moved.tolist(), strict=True
            )
            if moved
        }

    def tensor_steps(self) -> dict[str, int]:
        """The number of steps in which each tensor moved: what bias correction counts."""
        sat_out = self._count_absences()
        return {
            name: int(self._state(partition.flat)["step"]) - sat_out.get(name, 0)
            for partition in self._partitions.values()
            for name in partition.names
        }

    def restore_tensor_steps(self, steps: Mapping[str, int]) -> None:
        """Continue these counts; call it after a checkpoint was loaded, on every rank.

        Args:
            steps: by name. A tensor without one has moved in every step of its group.
        """
        self._sat_out = {
            name: int(self._state(partition.flat)["step"]) - steps[name]
            for partition in self._partitions.values()
            for name in partition.names
            if name in steps
        }
        self._records.clear()

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
        if self._device is None and is_phantom(self.param_groups, self._partitions):
            return loss
        groups = [group for group in self.param_groups for _ in group["params"]]
        flats = [flat for group in self.param_groups for flat in group["params"]]
        if flats:
            self._move([self._known(flat) for flat in flats], groups)
        return loss

    def _move(self, partitions: list[Partition], groups: list[dict[str, Any]]) -> None:
        """Algorithm 2 on the tensors of these partitions, each of a group."""
        record = self._record(partitions)
        states = [self._state(partition.flat) for partition in partitions]
        steps = [int(state["step"]) + 1 for state in states]
        quantities = [
            (_flat(p.flat), _flat(state["exp_avg"]), _flat(state["exp_avg_sq"]), _gradient(p.flat))
            for p, state in zip(partitions, states, strict=True)
        ]
        lengths = [len(partition.names) for partition in partitions]
        settings = Settings.of(zip(groups, steps, lengths, strict=True), record.sat_out.device)
        rule = settings.rule(record.sat_out)

        blocks = Blocks(record.table, quantities)
        sums = blocks.sums(squares, rule)
        self._add_ranks(sums, record.exchanges)
        self._finite = (sums[:, 3] == 0).all()
        record.moved = (sums[:, 2] > 0) & self._finite
        record.adapted = record.moved & settings.adapt
        if sums.device.type == "cpu" and not self._finite:
            return
        record.norms = sums[:, :2].sqrt()
        record.ratios = trust_ratio(record.norms, settings.clamp)

        step_size = settings.lr * torch.where(settings.adapt, record.ratios, 1.0)
        scalars = torch.cat([rule, torch.stack([step_size, record.moved.double()], dim=1)], dim=1)
        blocks.update(apply, scalars, changed=3)
        record.sat_out += ~record.moved
        for state, group, step in zip(states, groups, steps, strict=True):
            group["step"] = state["step"] = step

    def _add_ranks(
        self,
        sums: Float[Tensor, "tensors 4"],
        exchanges: Iterable[tuple[dist.ProcessGroup, Int[Tensor, " shared"]]],
    ) -> None:
        """Replace sums by those of all ranks: one all-reduce a process group."""
        for process_group, shared in exchanges:
            total = sums[shared].to(self._device)
            dist.all_reduce(total, group=process_group)
            sums[shared] = total.to(sums.device)

    def _record(self, partitions: list[Partition]) -> _Record:
        key = tuple(partition.flat for partition in partitions)
        if key not in self._records:
            sat_out = self._count_absences()
            for other in [other for other in self._records if set(other) & set(key)]:
                del self._records[other]
            self._sat_out = sat_out
            self._records[key] = _Record.of(partitions, sat_out)
        return self._records[key]

    def _count_absences(self) -> dict[str, int]:
        return self._sat_out | {
            name: count
            for record in self._records.values()
            for name, count in zip(record.table.names, record.sat_out.tolist(), strict=True)
        }

    def _last_records(self) -> list[_Record]:
        return [] if discarded(self._wrapper) else list(self._records.values())

    def _known(self, flat: Tensor) -> Partition:
        if flat not in self._partitions:
            raise RuntimeError(
                "LAMB was handed a tensor that it does not know; under DeepSpeed call "
                "optimizer.bind(engine) once, right after deepspeed.initialize"
            )
        return self._partitions[flat]

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


def _flat(tensor: Tensor) -> Float[Tensor, " elements"]:
    return tensor.detach().view(-1)


def _gradient(flat: Tensor) -> Float[Tensor, " elements"]:
    """The gradient; zeros where there is none."""
    return torch.zeros_like(_flat(flat)) if flat.grad is None else flat.grad.reshape(-1)
