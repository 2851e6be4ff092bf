"""Plain torch in one process: the reference of every comparison, and the engine of evaluation."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.batch import Batch
from pipeline.objectives.task import PretrainingTask
from pipeline.training.engine import Statistics, StepOutcome

STATE_FILE = "state.pt"


class LocalEngine:
    """One process, fp32 weights; bf16 by autocast."""

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
    ) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.task = task.to(self.device)
        self.optimizer = optimizer
        self._bf16 = precision == "bf16"
        self._clipping = gradient_clipping

    def begin_phase(self, rounds: int) -> None:
        """Nothing depends on the number of micro-batches here."""

    def backward(self, batch: Batch, denominators: Tensor) -> Statistics:
        """Add a micro-batch's share of the gradient."""
        self.task.train()
        with self._autocast():
            loss, statistics = self.task(batch, denominators)
        loss.backward()
        result: Tensor = statistics
        return result

    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update, clear."""
        bound = self._clipping or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.task.parameters(), bound)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        return StepOutcome(float(norm))

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Statistics:
        """Statistics without dropout and gradients."""
        self.task.eval()
        ones = torch.ones(len(self.task.objective_names), device=self.device)
        with self._autocast():
            statistics: Tensor = self.task(batch, ones)[1]
        return statistics

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

    def save(self, directory: Path) -> None:
        """Weights and optimizer state."""
        directory.mkdir(parents=True)
        state = {"model": self.task.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save(state, directory / STATE_FILE)

    def load(self, directory: Path) -> None:
        """Read back what was saved; only tensors and plain values are accepted."""
        state = torch.load(directory / STATE_FILE, map_location=self.device, weights_only=True)
        self.task.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)
