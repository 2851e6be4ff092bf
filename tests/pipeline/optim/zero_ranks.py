"""Processes that are ranks of one DeepSpeed group; they meet by a file."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def run_ranks(work: Callable[..., None], world_size: int, directory: Path, *arguments: Any) -> None:
    """Call ``work(directory, *arguments)`` on each of ``world_size`` ranks of a group."""
    torch.multiprocessing.spawn(
        _run_rank, args=(world_size, work, directory, arguments), nprocs=world_size
    )


def _run_rank(
    rank: int, world_size: int, work: Callable[..., None], directory: Path, arguments: Any
) -> None:
    os.environ |= {
        "DS_ACCELERATOR": "cpu",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    torch.set_num_threads(1)
    import deepspeed

    from pipeline.training.start import leave_process_group

    deepspeed.utils.logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    store = f"file://{directory / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    deepspeed.init_distributed("gloo", dist_init_required=False, verbose=False)
    work(directory, *arguments)
    dist.barrier()
    leave_process_group()
