"""From a configuration to a training that runs: data checked, engine made, checkpoint loaded."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from configs.schema import ConfigError
from pipeline.ceiling import measure_ceiling
from pipeline.data import Data
from pipeline.fitting import fit
from pipeline.models import ModelConfig, build_model
from pipeline.nn.blocks import compile_blocks, save_memory
from pipeline.nn.model import PretrainingModel
from pipeline.objectives import build_objectives
from pipeline.objectives.task import PretrainingTask
from pipeline.opening import open_data
from pipeline.optim import build_optimizer, describe_groups
from pipeline.optim.table import treatment_table
from pipeline.precision import dtype
from pipeline.settings import Run
from pipeline.training.agreement import compare_ranks, digests_of, refuse, together, traits_of
from pipeline.training.checkpoints.checkpoint import (
    CHECKPOINTS,
    Checkpoints,
    State,
    read_memory,
)
from pipeline.training.checkpoints.initial import Beginning, find_beginning, idle_patterns
from pipeline.training.checkpoints.recovery import find_start
from pipeline.training.checkpoints.remote import open_remote
from pipeline.training.checkpoints.resume import check_resume, restore
from pipeline.training.checkpoints.saving import Saver
from pipeline.training.deepspeed_options import deepspeed_options
from pipeline.training.engine import Engine
from pipeline.training.guards import Guard
from pipeline.training.hosts import find_host
from pipeline.training.local_engine import LocalEngine
from pipeline.training.loop import Trainer
from pipeline.training.skips import SetBack, read_skips
from pipeline.training.tracking import Tracker, environment, versions
from preprocessing.draws import purpose_key
from preprocessing.locks import exclusive
from preprocessing.storage import (
    MANIFEST,
    InputError,
    Manifest,
    verify_shards,
    write_json,
)

RUN_FILE = "run.json"


def start_training(run: Run) -> dict[str, object]:
    """Train a run to its end, from its newest checkpoint if there is one.

    Returns:
        The steps done and the last checkpoint.
    """
    prepare_environment()
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if run.train.engine == "deepspeed":
        from pipeline.training.deepspeed_engine import join_ranks

        join_ranks()
    elif world_size > 1:
        raise ConfigError(["train.engine: 'local' is one process; use 'deepspeed' for more ranks"])
    host = find_host(run.output.shared)
    compare_ranks(traits_of(run, versions()))
    data = together(lambda: open_data(run))
    compare_ranks(digests_of(data))
    checkpoints = Checkpoints(run.output.directory / CHECKPOINTS)
    remote = open_remote(run.output.upload)
    with contextlib.ExitStack() as stack:
        with host.together():
            if host.leads:
                stack.enter_context(exclusive(run.output.directory))
                checkpoints.clear_unfinished()
        found = find_start(checkpoints, remote, host)
        begun = together(lambda: find_beginning(run, host)) if found is None else None
        newest, state = found or (None, None)
        if begun and begun.state:
            newest, state = begun.checkpoint, begun.state
        changes = _changes(run, state, data) if state else []
        first_step = state.step if state else 0
        if first_step >= run.total_steps:
            _say(rank, f"{newest}: all {run.total_steps} steps are done")
            return {"steps": first_step, "checkpoint": str(newest)}

        refuse(_try_compiler(run))
        engine = build_engine(run)
        check_streams(run, engine)
        data = fit(run, data, engine.task)
        refuse(_verify(run, data, engine.rank, engine.world_size))
        if newest and state:
            restore(run, engine, newest, state)
        elif begun:
            engine.adopt(begun.weights)
        engine.barrier()  # all measure at once, for so they train
        own = measure_ceiling(engine.device, dtype(run.train.precision))
        ceiling = sum(engine.exchange(own))
        with host.together():
            tracker = (
                _track(run, state, data, changes, engine, begun, ceiling) if rank == 0 else None
            )
        if rank == 0:
            _describe(run, engine, first_step, ceiling)
        saver = Saver(
            run,
            engine,
            data,
            checkpoints,
            _run_id(run, state),
            host=host,
            remote=remote,
            tracker=tracker,
        )
        guard = Guard(run.train.stop_if, run.train.guards, state.guards if state else {})
        skips = read_skips(run.output.directory, state.skips if state else ())
        set_back = SetBack(run, engine, checkpoints, host, skips)
        trainer = Trainer(run, engine, data, saver, tracker, guard, set_back, ceiling)
        try:
            trainer.train(first_step, read_memory(newest) if newest else {})
        finally:
            if tracker is not None:
                tracker.close()
    return {"steps": run.total_steps, "checkpoint": str(checkpoints.latest())}


def prepare_environment() -> None:
    """What a launcher sets, where there was none; and no more threads than cores."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1"}
        os.environ.update({**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        if "OMP_NUM_THREADS" not in os.environ:
            cores = len(os.sched_getaffinity(0))
            local = int(os.environ.get("LOCAL_SIZE", os.environ["WORLD_SIZE"]))
            torch.set_num_threads(max(1, cores // local))
    tools = str(Path(sys.executable).parent)  # ninja, for the operators DeepSpeed compiles
    if tools not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = tools + os.pathsep + os.environ["PATH"]


def leave_process_group() -> None:
    """End this process's part in the group, so that the process can end.

    A thread of gloo's lets go of the last collective's tensors, for which it needs the
    interpreter's lock; one that asks for it when the interpreter already ends aborts the process,
    and a finished training would count as failed.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.3)


def build_task(
    run: Run, build: Callable[[ModelConfig], PretrainingModel] = build_model
) -> PretrainingTask:
    """The model with new weights, the same on every rank, and its objectives."""
    torch.manual_seed(int(purpose_key(run.seed, "weights")) >> 1)
    model = build(run.model)
    save_memory(model, run.train.activation_checkpointing)
    if compiles(run):
        compile_blocks(model)
        model.attending.static = True
    objectives = build_objectives(run.objectives)
    in_tasks = objectives if any(phase.tasks for phase in run.phases) else ()
    return PretrainingTask(model, objectives, sometimes=in_tasks)


def compiles(run: Run) -> bool:
    """Whether blocks are compiled; those of which no rank has all weights stay as they are."""
    settings = run.train
    partitioned = settings.engine == "deepspeed" and run.deepspeed.zero_stage == 3
    return settings.compile and not partitioned


def build_engine(run: Run) -> Engine:
    """The configured engine around a new model and optimizer.

    Raises:
        ConfigError: it needs what is not there: a GPU, a library, another DeepSpeed.
    """
    check_device(run)
    settings = run.train
    if settings.engine == "local":
        task = build_task(run).to("cuda" if torch.cuda.is_available() else "cpu")
        return LocalEngine(
            task,
            build_optimizer(run.optimizer, task.model),
            precision=settings.precision,
            gradient_clipping=settings.gradient_clipping,
            fp16=run.deepspeed.fp16,
        )
    from pipeline.training.deepspeed_engine import DeepSpeedEngine, build_partitioned

    options = deepspeed_options(
        run.deepspeed,
        precision=settings.precision,
        gradient_clipping=settings.gradient_clipping,
        micro_batch_rows=settings.micro_batch_rows,
    )
    options["checkpoint"] = {"use_node_local_storage": not run.output.shared}
    if run.deepspeed.zero_init:
        task = build_task(run, lambda model: build_partitioned(lambda: build_model(model), options))
    else:
        task = build_task(run)
    return DeepSpeedEngine(
        task,
        build_optimizer(run.optimizer, task.model),
        options=options,
    )


def check_device(run: Run) -> None:
    """Refuse what cannot be computed here.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if run.train.precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            [f"{run.name}: train.precision: fp16 needs a GPU, and there is none; use bf16 or fp32"]
        )


def _try_compiler(run: Run) -> str | None:
    """Compile next to nothing: what is missing shows now, and not after the data was looked at."""
    if not compiles(run):
        return None
    try:
        sample = torch.zeros(2, device="cuda" if torch.cuda.is_available() else "cpu")
        torch.compile(lambda tensor: tensor.neg() + 1, dynamic=False)(sample)
    except (torch._dynamo.exc.TorchDynamoException, OSError) as error:
        lines = str(error).removeprefix("backend='inductor' raised:\n").splitlines()
        reason = next((line for line in lines if "error: " in line), lines[0])
        return (
            f"{run.name}: train.compile: torch cannot compile on {socket.gethostname()}: {reason}; "
            "it needs a C++ compiler (CXX, or g++ on the PATH) and Python's headers, on a GPU "
            "Triton and a C compiler; or set train.compile: false"
        )
    return None


def check_streams(run: Run, engine: Engine) -> None:
    """Refuse to give a model memory of rows that have nothing to do with each other.

    Raises:
        ConfigError: a phase does not read streams, and the model carries memory.
    """
    if engine.task.model.initial_memory(1) is None:
        return
    shuffled = [index for index, phase in enumerate(run.phases) if not phase.streams]
    if shuffled:
        raise ConfigError(
            [
                f"{run.name}: phases.{index}.streams: model {run.model.family} carries memory from "
                "batch to batch; give streams: true, and examples of layout 'streams'"
                for index in shuffled
            ]
        )


def _changes(run: Run, state: State, data: Data) -> list[str]:
    """What has changed since a checkpoint and may."""
    return check_resume(run, state, data.digests_like(state.data), data.tokenizer)


def _verify(run: Run, data: Data, rank: int, world_size: int) -> str | None:
    """Compare this rank's share of the shards with their checksums."""
    if not run.train.verify_data:
        return None
    try:
        for directory in data.directories:
            shards = Manifest.read(directory).shards
            verify_shards(directory, shards[rank::world_size])
    except InputError as error:
        return str(error)
    return None


def _track(
    run: Run,
    state: State | None,
    data: Data,
    changes: list[str],
    engine: Engine,
    begun: Beginning | None,
    ceiling: float,
) -> Tracker:
    first_step = state.step if state else 0
    tracker = Tracker(
        run.output.directory,
        run.tracking,
        run_id=_run_id(run, None if begun else state),
        configuration={**run.plain(), "environment": environment()},
        first_step=first_step,
    )
    what = "resume" if state and not begun else "start"
    tracker.event(
        first_step,
        what,
        ranks=engine.world_size,
        engine=engine.kind,
        device=str(engine.device),
        ceiling_flops_per_second=ceiling,
        **environment(),
    )
    if begun:
        tracker.event(first_step, "init_from", **begun.facts)
        for pattern in idle_patterns(run, begun):
            _say(0, f"train.init_from: {pattern} allows what did not occur")
    for change in changes:
        tracker.event(first_step, "change", change=change)
    if state is None:
        for directory in data.directories:
            tracker.artifact(directory.name, "examples", directory / MANIFEST)
    return tracker


def _run_id(run: Run, state: State | None) -> str:
    """The id of the tracked run: drawn once, kept beside the checkpoints and in them."""
    path = run.output.directory / RUN_FILE
    if not path.exists():
        if os.environ["RANK"] != "0":
            return ""
        write_json(path, {"run_id": state.run_id if state else uuid.uuid4().hex[:12]})
    return str(json.loads(path.read_text())["run_id"])


def _describe(run: Run, engine: Engine, first_step: int, ceiling: float) -> None:
    num_parameters = sum(
        getattr(parameter, "ds_numel", parameter.numel())
        for parameter in engine.task.model.parameters()
    )
    rows = run.phases[-1].batch_rows
    _say(
        0,
        f"training {run.model.family} ({num_parameters:,} parameters) on {engine.world_size} "
        f"x {engine.device.type}, steps {first_step} to {run.total_steps}, {rows} rows a step",
    )
    name, reason = engine.task.model.attention_path(engine.device, dtype(run.train.precision))
    _say(0, f"attention: {name} ({reason})")
    speed = f"{ceiling / 1e12:,.2f} TFLOP/s in {run.train.precision}"
    _say(0, f"matrix products: {speed} at best, which mfu and hfu are shares of")
    if run.train.compile and not compiles(run):
        _say(0, "train.compile: blocks stay as they are at ZeRO stage 3")
    treatments = describe_groups(run.optimizer, engine.task.model)
    Console(stderr=True).print(treatment_table(treatments, run.optimizer.weight_decay))


def _say(rank: int, text: str) -> None:
    if rank == 0:
        print(text, file=sys.stderr, flush=True)
