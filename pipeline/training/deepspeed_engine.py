"""DeepSpeed behind the loop's protocol: the only file that imports it.

What was found by experiment with DeepSpeed 0.19.8, and is guarded here:

- Its state loads at the stage and the number of ranks that wrote it only, or in a *universal* form
  that does not move between stages 1 and 3: every move goes by
  :mod:`pipeline.training.checkpoints.states`.
- Loading brings back the hyperparameters of the run that saved: this run's are put back.
- On CPU it compiles an operator for inference, which leaves 66 MB in shared memory for every rank
  of every run, and behind whose build lock a killed process lets all later ones wait for ever:
  it is declared incompatible before DeepSpeed asks.

Where a step of its lets the host wait for a GPU, besides our reading of what became of it:

- Stage 0 copies two constants to the device while it clips, after the backward pass.
- Stages 1 and 2 read the flag of overflow (unless ``check_grad_overflow`` is off) and whether the
  norm is valid, once each. With ``overlap_comm``, which is off by default, they wait for the whole
  device before every bucket of gradients; with offload they read the norm of every tensor.
- Stage 3 waits for its reduction stream after every backward pass, for the norm, in fp16 for the
  flag, and for the oldest of too many fetches or reductions under way.
"""

from __future__ import annotations

import copyreg
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.zero.config import ZeroStageEnum
from torch import Tensor

from pipeline.batch import Batch
from pipeline.nn.model import PretrainingModel
from pipeline.objectives.task import PretrainingTask
from pipeline.optim import Lamb, restore_settings, settings_of
from pipeline.optim.finite import FiniteOnly, forget
from pipeline.optim.zero_layout import find_partitions, whole
from pipeline.training.agreement import Agreed, exchange
from pipeline.training.checkpoints.background import Put, at_once
from pipeline.training.checkpoints.pickles import check_pickles
from pipeline.training.checkpoints.state_files import TAG, read_tensor_steps, write_names
from pipeline.training.checkpoints.states import (
    SavedState,
    fill,
    names_in_order,
    restore_tensor_steps,
)
from pipeline.training.deepspeed_options import check_deepspeed_version
from pipeline.training.engine import Passed, StepOutcome, finite_or_nan
from preprocessing.storage import InputError

_SCALER_SETTINGS = ("scale_window", "min_scale", "delayed_shift", "raise_error_at_min_scale")
"""Of fp16's loss scaler: this run's, where the rest is the checkpoint's."""


class DeepSpeedEngine:
    """A DeepSpeed engine at ZeRO stage 0, 1, 2 or 3.

    Args:
        options: DeepSpeed's configuration, from
            :func:`pipeline.training.deepspeed_options.deepspeed_options`.

    Raises:
        ConfigError: the installed DeepSpeed is not a supported one.
    """

    kind = "deepspeed"

    def __init__(
        self,
        task: PretrainingTask,
        optimizer: torch.optim.Optimizer,
        *,
        options: Mapping[str, Any],
    ) -> None:
        _prepare()
        self.task = task
        self.optimizer = optimizer
        self.stage: int = options["zero_optimization"]["stage"]
        self._micro_batch_rows: int = options["train_micro_batch_size_per_gpu"]
        self._settings = settings_of(optimizer)
        self._names = names_in_order(task.model, optimizer)
        self._engine, *_ = deepspeed.initialize(
            model=task, optimizer=optimizer, config=dict(options)
        )
        if isinstance(optimizer, FiniteOnly | Lamb):
            optimizer.bind(self._engine)
        self.rank = deepspeed.comm.get_rank()
        self.world_size = deepspeed.comm.get_world_size()
        self.device = self._engine.device
        self._rounds = 1
        self._accumulating = False
        if self._engine.fp16_enabled():  # DeepSpeed is not to end the process at the lowest scale
            self._engine.optimizer.loss_scaler.raise_error_at_min_scale = False

    def begin_phase(self, rounds: int) -> None:
        """Accumulate over ``rounds`` micro-batches a step from here on."""
        self._rounds = rounds
        self._engine.set_train_batch_size(self._micro_batch_rows * rounds * self.world_size)
        # A step is due where this count is a multiple of the rounds: it has to start anew.
        self._engine.micro_steps = 0

    def backward(self, batch: Batch, denominators: Tensor) -> Passed:
        """Add a micro-batch's share of the gradient.

        DeepSpeed averages over rounds and ranks; the share is scaled up by both, so that the
        average is the sum.
        """
        if self._accumulating:  # DeepSpeed counts micro-batches by calls of step
            self._engine.step()
        self._engine.train()
        loss, statistics, memory = self._engine(batch, denominators)
        self._engine.backward(loss * (self._rounds * self.world_size) * finite_or_nan(loss))
        self._accumulating = True
        return Passed(statistics, memory)

    def step(self, learning_rate: float) -> StepOutcome:
        """Clip, update, clear."""
        engine = self._engine
        for group in engine.optimizer.param_groups:
            group["lr"] = learning_rate
        whole_norm = self._refuse_infinite_norm() if self.stage == 0 else None
        scale = float(engine.optimizer.loss_scale) if engine.fp16_enabled() else None
        engine.step()
        self._accumulating = False
        norm = engine.get_global_grad_norm() if whole_norm is None else whole_norm
        norm = math.nan if norm is None else norm  # DeepSpeed may be told not to compute it
        applied = engine.was_step_applied() and getattr(self.optimizer, "applied", True)
        if not applied:
            forget(engine.optimizer)
        if scale is None:
            return StepOutcome(float(norm), applied)
        falls = engine.dynamic_loss_scale() and scale > self._lowest_scale()
        return StepOutcome(float(norm), applied, scale, overflow=falls and not applied)

    def _refuse_infinite_norm(self) -> Tensor:
        """The gradient's norm at stage 0, where DeepSpeed tells none.

        Clipping by a norm beyond fp32 would make zeros of finite gradients. The other stages
        refuse such a step; here the optimizer does, if it finds an element that is not finite.
        No device is waited for.
        """
        gradients = [p.grad for p in self.task.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        gradients[0].mul_(finite_or_nan(norm))
        return norm

    def _lowest_scale(self) -> float:
        """What fp16's loss scale does not fall below."""
        return float(self._engine.dynamic_loss_scale_args()["min_scale"])

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> Passed:
        """Statistics and memory without dropout and gradients."""
        self._engine.eval()
        ones = torch.ones(len(self.task.objective_names), device=self.device)
        _, statistics, memory = self._engine(batch, ones)
        return Passed(statistics, memory)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks."""
        deepspeed.comm.all_reduce(tensor)
        return tensor

    def exchange(self, value: object) -> list[Any]:
        """What each rank says, by rank."""
        return exchange(value)

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

    def save(self, directory: Path, put: Put = at_once) -> None:
        """DeepSpeed's own state: each rank writes its part."""
        engine, failures = self._engine, list[Exception]()
        write = engine.checkpoint_engine.save

        def attempt(state_dict: Any, path: str) -> None:
            """A rank that cannot write must still join the collectives that follow."""
            try:
                put(state_dict, lambda state: write(state, path))
            except (OSError, RuntimeError) as error:  # torch tells a full disk so
                failures.append(error)

        engine.checkpoint_engine.save = attempt
        try:
            engine.save_checkpoint(str(directory), tag=TAG, save_latest=False)
        finally:
            engine.checkpoint_engine.save = write
        if failures:
            raise failures[0]
        if (engine.local_rank if engine.use_node_local_storage() else self.rank) == 0:
            write_names(directory, self._names, self.optimizer)

    def load(self, directory: Path) -> None:
        """Restore the state, bit for bit, at the stage and on the ranks that saved it.

        Raises:
            InputError: the state cannot be read, or holds more than tensors and plain values.
        """
        problem = None
        if self.rank == 0:
            try:
                check_pickles(directory / TAG)
            except InputError as error:
                problem = str(error)
        if problems := self.agree(problem):
            raise Agreed("\n".join(problems))
        wrapper = self._engine.optimizer
        clipping = getattr(wrapper, "clip_grad", None)
        scaler = getattr(wrapper, "loss_scaler", None)
        path, _ = self._engine.load_checkpoint(str(directory), tag=TAG)
        if path is None:
            raise InputError(f"{directory}: DeepSpeed found no state to load here")
        if clipping is not None:
            wrapper.clip_grad = clipping
        for key in _SCALER_SETTINGS:
            if hasattr(scaler, key):
                setattr(wrapper.loss_scaler, key, getattr(scaler, key))
        restore_settings(self.optimizer, self._settings)
        restore_tensor_steps(self.optimizer, read_tensor_steps(directory))
        self.barrier()

    @torch.no_grad()
    def adopt(self, saved: SavedState) -> None:
        """Take over what any engine has saved, at any stage and on any number of ranks.

        Raises:
            Agreed: the moments may be those of other tensors.
        """
        wrapper = self._engine.optimizer
        named = dict(self.task.model.named_parameters())
        names: dict[Tensor, str] = {
            tensor: name for name, tensor in named.items() if tensor.requires_grad
        }
        if wrapper is self.optimizer:
            partitions = [whole(tensor, name) for tensor, name in names.items()]
        else:
            partitions = find_partitions(wrapper, names, self.device)
        for name, parameter in named.items():
            if name in saved.weights:
                with deepspeed.zero.GatheredParameters(
                    [parameter], modifier_rank=0, enabled=self.stage == 3
                ):
                    if self.stage < 3 or self.rank == 0:
                        parameter.copy_(saved.weights[name])
        problem = None
        try:
            fill(partitions, self.optimizer, saved)
        except InputError as error:
            problem = str(error)
        if problems := self.agree(problem):
            raise Agreed("\n".join(problems))


def build_partitioned(
    build: Callable[[], PretrainingModel], options: Mapping[str, Any]
) -> PretrainingModel:
    """A model of which no rank ever has more than one module whole, for ZeRO stage 3.

    Its weights are those that ``build`` alone would give it. Collective.

    Raises:
        ConfigError: the installed DeepSpeed is not a supported one.
    """
    _prepare()
    with deepspeed.zero.Init(config_dict_or_path=dict(options)):
        model = build()
    model.initialize(lambda tensors: deepspeed.zero.GatheredParameters(tensors, modifier_rank=0))
    return model


def join_ranks() -> None:
    """Make the process group, before there is an engine, so that the ranks can talk.

    Raises:
        ConfigError: the installed DeepSpeed is not a supported one.
    """
    _prepare()
    accelerator = deepspeed.get_accelerator()
    accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(accelerator.communication_backend_name(), verbose=False)


def _prepare() -> None:
    """What must be so before DeepSpeed does anything."""
    check_deepspeed_version(deepspeed.__version__)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Python before 3.11.4 pickles members of enumerations by `getattr`, which the allow-list of
    # state files cannot let pass: it would let anything pass.
    copyreg.pickle(ZeroStageEnum, _by_value)


def _by_value(stage: Any) -> tuple[Any, tuple[int]]:
    return ZeroStageEnum, (int(stage),)
