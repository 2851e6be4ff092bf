"""Functions run by several ranks at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from launchers.local import free_port


def spawn(work: Callable[..., None], ranks: int, *arguments: Any) -> None:
    """Call ``work(rank, *arguments)`` in ``ranks`` processes."""
    torch.multiprocessing.spawn(_enter, (ranks, free_port(), work, arguments), nprocs=ranks)


def _enter(rank: int, ranks: int, port: int, work: Callable[..., None], arguments: Any) -> None:
    from pipeline.training.start import leave_process_group

    os.environ.update(
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "DS_ACCELERATOR": "cpu",
            "OMP_NUM_THREADS": "1",
        }
    )
    torch.set_num_threads(1)
    work(rank, *arguments)
    leave_process_group()
