"""Steps on gradients that are no numbers change nothing: weights, moments and counts stay.

One infinite or undefined element spoils a whole run, since the moments never forget it. Whether
there is one has to be known for all tensors on all ranks before any of them moves.

DeepSpeed's wrappers that keep fp32 copies of the weights look for themselves, by the gradient's
global norm, and then do not call the optimizer at all. They must, for they hand it one group, or a
part of one, at a time. What is not wrapped, stage 0 in fp32 and plain torch, is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class FiniteOnly(torch.optim.Optimizer):
    """A mix-in, to stand before an optimizer of a library: ``class AdamW(FiniteOnly, ...)``.

    Without DeepSpeed nothing needs to be bound. With it, :meth:`bind` follows ``initialize``.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._given = {tensor for group in self.param_groups for tensor in group["params"]}
        self._wrapper: Any = None
        self._device: torch.device | None = None
        self._finite = True

    @property
    def applied(self) -> bool:
        """Whether the last step, if there was one, changed anything."""
        return self._finite and not discarded(self._wrapper)

    def bind(self, engine: Any) -> None:
        """Learn who looks at the gradients. Every rank calls it once, after ``initialize``.

        Args:
            engine: what ``deepspeed.initialize`` returned for this optimizer.

        Raises:
            ValueError: DeepSpeed was told not to look.
        """
        self._device = torch.device(engine.device)
        if engine.optimizer is not self:
            self._wrapper = guarding(engine.optimizer)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, or none at all where a gradient is not finite on any rank.

        Raises:
            RuntimeError: handed tensors of DeepSpeed's before :meth:`bind`.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._device is None and is_phantom(self.param_groups, self._given):
            return loss
        if self._wrapper is None:
            self._finite = self._all_finite()
        if self._finite:
            super().step()
        return loss

    def _all_finite(self) -> bool:
        extremes = [  # they keep NaN and cost a read: far less than torch's infinity norm on CPUs
            extreme.float()
            for group in self.param_groups
            for tensor in group["params"]
            if tensor.grad is not None and tensor.numel()
            for extreme in tensor.grad.aminmax()
        ]
        finite = torch.stack(extremes).isfinite().all() if extremes else torch.tensor(True)
        if self._device is not None:
            finite = finite.to(self._device, torch.int32)
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        return bool(finite)


def guarding(wrapper: Any) -> Any:
    """A wrapper that discards steps with gradients that are not finite.

    Raises:
        ValueError: it was told not to.
    """
    if getattr(wrapper, "check_grad_overflow", True):
        return wrapper
    if wrapper.compute_grad_norm and wrapper.dtype != torch.bfloat16:
        return wrapper
    raise ValueError(
        "DeepSpeed was told not to look for gradients that are not finite; one would spoil the "
        "moments for good. Leave out bf16.check_grad_overflow and "
        "zero_optimization.compute_grad_norm"
    )


def discarded(wrapper: Any) -> bool:
    """Whether a wrapper, if there is one, did not hand on its last step."""
    return bool(getattr(wrapper, "overflow", False))


def forget(wrapper: Any) -> None:
    """Let a wrapper that discarded a step drop its gradients; call it after each such step.

    With CPU offload and fp32 sums of gradients, stages 1 and 2 of DeepSpeed 0.19 keep them and add
    all later ones to them, so that every later step is discarded as well.
    """
    if hasattr(wrapper, "single_partition_of_fp32_groups"):
        for number in wrapper.averaged_gradients:
            wrapper.averaged_gradients[number] = None


def is_phantom(groups: Iterable[dict[str, Any]], given: Container[Tensor]) -> bool:
    """Whether a step is that of DeepSpeed's constructors: at stage 0 in bf16 and fp16 they step
    on their own copies of the weights with gradients of zero, and would count it.

    Raises:
        RuntimeError: the tensors are DeepSpeed's, but their gradients are not zero.
    """
    strangers = [tensor for group in groups for tensor in group["params"] if tensor not in given]
    if any(tensor.grad is not None and bool(tensor.grad.any()) for tensor in strangers):
        raise RuntimeError(
            "this optimizer was handed tensors that it does not know; under DeepSpeed call "
            "optimizer.bind(engine) once, right after deepspeed.initialize"
        )
    return bool(strangers)
