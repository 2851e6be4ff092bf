"""DeepSpeed behind the loop's protocol: the only file that imports it.

What was found by experiment with DeepSpeed 0.19.8, and is guarded here:

- ``zero_allow_untested_optimizer`` is needed: acceptance is by exact type, and ours are ours.
- A checkpoint loads at another world size only in its *universal* form; stages 1 and 2 convert
  only if the checkpoint carries ``universal_checkpoint_info``.
- On loading, stage 3 copies the first group's hyperparameters into every group: they are put
  back.
- bf16 gradients accumulate in bf16 unless ``data_types.grad_accum_dtype`` says fp32.
- On CPU it compiles an operator for inference, which leaves 66 MB in shared memory for every rank
  of every run, and behind whose build lock a killed process lets all later ones wait for ever:
  it is declared incompatible before DeepSpeed asks.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import deepspeed
import torch
from torch import Tensor

from configs.schema import to_plain
from pipeline.batch import Batch
from pipeline.objectives.task import PretrainingTask
from pipeline.optim import Lamb, restore_settings, settings_of
from pipeline.sections import DeepSpeedConfig
from pipeline.training.engine import Statistics, StepOutcome
from pipeline.training.pickles import check_pickles
from preprocessing.storage import InputError

_TAG = "state"
_UNIVERSAL = "universal"


class DeepSpeedEngine:
    """A DeepSpeed engine at ZeRO stage 0, 1, 2 or 3.

    Args:
        universal: whether the state that will be loaded comes from another world size.
    """

    kind = "deepspeed"

    def __init__(
        self,
        task: PretrainingTask,
        optimizer: torch.optim.Optimizer,
        *,
        precision: str,
        gradient_clipping: float,
        micro_batch_rows: int,
        settings: DeepSpeedConfig,
        universal: bool = False,
    ) -> None:
        logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
        self.task = task
        self.optimizer = optimizer
        self.stage = settings.zero_stage
        self._universal = universal and settings.zero_stage > 0  # stage 0 is whole on every rank
        self._micro_batch_rows = micro_batch_rows
        options = _merge(
            {
                "train_micro_batch_size_per_gpu": micro_batch_rows,
                "gradient_accumulation_steps": 1,
                "gradient_clipping": gradient_clipping,
                "zero_optimization": {"stage": settings.zero_stage},
                "zero_allow_untested_optimizer": True,
                "zero_force_ds_cpu_optimizer": False,
                "bf16": {"enabled": precision == "bf16"},
                "checkpoint": {"load_universal": self._universal},
                "steps_per_print": 10**9,
                **({"data_types": {"grad_accum_dtype": "fp32"}} if precision == "bf16" else {}),
            },
            to_plain(settings.options),
        )
        self._settings = settings_of(optimizer)
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._engine, *_ = deepspeed.initialize(model=task, optimizer=optimizer, config=options)
        if isinstance(optimizer, Lamb):
            optimizer.bind(self._engine)
        self.rank = deepspeed.comm.get_rank()
        self.world_size = deepspeed.comm.get_world_size()
        self.device = self._engine.device
        self._rounds = 1
        self._accumulating = False

    def begin_phase(self, rounds: int) -> None:
        """Accumulate over ``rounds`` micro-batches a step from here on."""
        self._rounds = rounds
        self._engine.set_train_batch_size(self._micro_batch_rows * rounds * self.world_size)

    def backward(self, batch: Batch, denominators: Tensor) -> Statistics:
        """Add a micro-batch's share of the gradient.

        DeepSpeed averages over rounds and ranks; the share is scaled up by both, so that the
        average is the sum.
        """
        if self._accumulating:  # DeepSpeed counts micro-batches by calls of step
            self._engine.step()
        self._engine.train()
        loss, statistics = self._engine(batch, denominators)
        self._engine.backward(loss * (self._rounds * self.world_size))
        self._accumulating = True
        result: Tensor = statistics
        return result

    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update, clear."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        self._accumulating = False
        norm = self._engine.get_global_grad_norm()
        return StepOutcome(float(norm) if norm is not None else 0.0)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Statistics:
        """Statistics without dropout and gradients."""
        self._engine.eval()
        ones = torch.ones(len(self.task.objective_names), device=self.device)
        statistics: Tensor = self._engine(batch, ones)[1]
        return statistics

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks."""
        deepspeed.comm.all_reduce(tensor)
        return tensor

    def exchange(self, value: object) -> list[Any]:
        """What each rank says, by rank."""
        said: list[Any] = [None] * self.world_size
        torch.distributed.all_gather_object(said, value)
        return said

    def agree(self, problem: str | None) -> list[str]:
        """The problems of all ranks, on all ranks."""
        return list(dict.fromkeys(said for said in self.exchange(problem) if said))

    def barrier(self) -> None:
        """Wait for all ranks."""
        deepspeed.comm.barrier()

    def weights(self) -> dict[str, Tensor] | None:
        """All parameters by name, fp32, on rank 0: the master weights where there are any."""
        gathered = {}
        for name, parameter in self.task.model.named_parameters():
            full = deepspeed.utils.safe_get_full_fp32_param(parameter)
            if full is None:
                with deepspeed.zero.GatheredParameters([parameter], enabled=self.stage == 3):
                    full = parameter.detach()
                    if self.rank == 0:
                        gathered[name] = full.to("cpu", torch.float32, copy=True)
            elif self.rank == 0:
                gathered[name] = full.detach().to("cpu", torch.float32, copy=True)
        return gathered if self.rank == 0 else None

    def save(self, directory: Path) -> None:
        """DeepSpeed's own state: each rank writes its part."""
        self._engine.save_checkpoint(
            str(directory),
            tag=_TAG,
            client_state={"universal_checkpoint_info": {"universal_checkpoint_version": 0.2}},
            save_latest=False,
        )

    def load(self, directory: Path) -> None:
        """Restore the state, at any number of ranks.

        Raises:
            InputError: the state cannot be read, or holds more than tensors and plain values.
        """
        tag = _TAG
        problem = None
        if self.rank == 0:
            try:
                check_pickles(directory / _TAG)
                if self._universal:
                    _make_universal(directory)
            except (InputError, AssertionError, OSError) as error:
                problem = f"{directory}: {error}"
        if problems := self.agree(problem):
            raise InputError("\n".join(problems))
        if self._universal:
            tag = _UNIVERSAL
        path, _ = self._engine.load_checkpoint(str(directory), tag=tag)
        if path is None:
            raise InputError(f"{directory}: DeepSpeed found no state to load here")
        restore_settings(self.optimizer, self._settings)
        self.barrier()
        if self._universal and self.rank == 0:
            shutil.rmtree(directory / _UNIVERSAL)


def _make_universal(directory: Path) -> None:
    """Convert DeepSpeed's state to the form that loads at any world size, below ``directory``."""
    from deepspeed.checkpoint.ds_to_universal import main as convert

    target = directory / _UNIVERSAL
    shutil.rmtree(target, ignore_errors=True)
    arguments = argparse.Namespace(
        input_folder=str(directory / _TAG),
        output_folder=str(target),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=False,
    )
    with (
        open(os.devnull, "w") as quiet,
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        convert(arguments)


def _merge(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Options of the user into ours, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        own = merged.get(key)
        merged[key] = (
            _merge(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
        )
    return merged
