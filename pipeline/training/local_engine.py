"""Plain torch in one process: the reference of every comparison, and the engine of evaluation."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.batch import Batch
from pipeline.objectives.task import PretrainingTask
from pipeline.optim.zero_layout import whole
from pipeline.precision import autocast
from pipeline.sections import Fp16Config
from pipeline.training.checkpoints.background import Put, at_once
from pipeline.training.checkpoints.state_files import LOCAL_FILE, read_tensor_steps, write_names
from pipeline.training.checkpoints.states import (
    SavedState,
    fill,
    names_in_order,
    restore_tensor_steps,
)
from pipeline.training.engine import Passed, StepOutcome, finite_or_nan
from pipeline.training.loss_scale import LossScale


class LocalEngine:
    """One process, fp32 weights; bf16 and fp16 by autocast.

    Args:
        fp16: how the loss is scaled where ``precision`` is fp16.
    """

    kind = "local"
    rank = 0
    world_size = 1

    def __init__(
        self,
        task: PretrainingTask,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        gradient_clipping: float,
        fp16: Fp16Config,
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.task = task.to(self.device)
        self.optimizer = optimizer
        self._names = names_in_order(task.model, optimizer)
        self._precision = precision
        self._loss_scale = LossScale(fp16) if precision == "fp16" else None
        self._clipping = gradient_clipping

    def begin_phase(self, rounds: int) -> None:
        """Nothing depends on the number of micro-batches here."""

    def backward(self, batch: Batch, denominators: Tensor) -> Passed:
        """Add a micro-batch's share of the gradient."""
        self.task.train()
        with self._autocast():
            loss, statistics, memory = self.task(batch, denominators)
        if self._loss_scale is not None:
            loss = loss * self._loss_scale.value
        (loss * finite_or_nan(loss)).backward()
        return Passed(statistics, memory)

    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update, clear."""
        if self._loss_scale is not None:
            for parameter in self.task.parameters():
                if parameter.grad is not None:
                    parameter.grad.div_(self._loss_scale.value)
        bound = self._clipping or float("inf")
        # Waits for a GPU while only this is asked of it; the update then runs on behind the host.
        norm = float(torch.nn.utils.clip_grad_norm_(self.task.parameters(), bound))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        applied = math.isfinite(norm)
        if applied:
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self._loss_scale is None:
            return StepOutcome(norm, applied)
        scale = self._loss_scale.value
        overflow = not applied and self._loss_scale.may_fall
        self._loss_scale.update(not applied)
        return StepOutcome(norm, applied, scale, overflow)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Passed:
        """Statistics and memory without dropout and gradients."""
        self.task.eval()
        ones = torch.ones(len(self.task.objective_names), device=self.device)
        with self._autocast():
            _, statistics, memory = self.task(batch, ones)
        return Passed(statistics, memory)

    def sum(self, tensor: Tensor) -> Tensor:
        """There is one rank."""
        return tensor

    def exchange(self, value: object) -> list[Any]:
        """There is one rank."""
        return [value]

    def agree(self, problem: str | None) -> list[str]:
        """There is one rank."""
        return [problem] if problem else []

    def barrier(self) -> None:
        """There is one rank."""

    def weights(self) -> dict[str, Tensor]:
        """All parameters by name."""
        return {
            name: parameter.detach().to("cpu", torch.float32, copy=True)
            for name, parameter in self.task.model.named_parameters()
        }

    def save(self, directory: Path, put: Put = at_once) -> None:
        """Weights and optimizer state."""
        directory.mkdir(parents=True)
        state = {"model": self.task.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self._loss_scale is not None:
            state["loss_scale"] = self._loss_scale.state()
        put(state, lambda state: torch.save(state, directory / LOCAL_FILE))
        write_names(directory, self._names, self.optimizer)

    def load(self, directory: Path) -> None:
        """Read back what was saved; only tensors and plain values are accepted."""
        state = torch.load(directory / LOCAL_FILE, map_location=self.device, weights_only=True)
        self.task.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._loss_scale is not None:
            self._loss_scale.restore(state["loss_scale"])
        restore_tensor_steps(self.optimizer, read_tensor_steps(directory))

    @torch.no_grad()
    def adopt(self, saved: SavedState) -> None:
        """Take over what any engine has saved."""
        named = dict(self.task.model.named_parameters())
        for name in named.keys() & saved.weights.keys():
            named[name].copy_(saved.weights[name])
        trained = [whole(tensor, name) for name, tensor in named.items() if tensor.requires_grad]
        fill(trained, self.optimizer, saved)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return autocast(self._precision, self.device)
