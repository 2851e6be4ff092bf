"""DeepSpeed saves pickles, and a pickle can run code: what a file refers to is read first."""

from __future__ import annotations

from pathlib import Path

import torch

from preprocessing.storage import InputError

SAFE_GLOBALS = frozenset(
    {
        "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
        "deepspeed.runtime.fp16.loss_scaler.LossScaler",
        "deepspeed.runtime.zero.config.ZeroStageEnum",
        "deepspeed.utils.tensor_fragment.fragment_address",
    }
)
"""What DeepSpeed's state files refer to beyond tensors; nothing of it runs code on loading."""


def check_pickles(directory: Path) -> None:
    """Read the names that every ``.pt`` file below a directory refers to, without loading it.

    Raises:
        InputError: a file is damaged, or refers to something that is not on the list.
    """
    paths = sorted(directory.rglob("*.pt"))
    if not paths:
        raise InputError(f"{directory}: no state files here")
    for path in paths:
        check_pickle(path)


def check_pickle(path: Path) -> None:
    """Read the names that one file refers to, without loading it.

    Raises:
        InputError: it is damaged, or refers to something that is not on the list.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception as error:  # zipfile, pickle and torch raise many kinds
        raise InputError(f"{path}: damaged: {error}") from None
    refused = [name for name in names if name not in SAFE_GLOBALS]
    if refused:
        raise InputError(
            f"{path}: refers to {', '.join(refused)}, which may run code on loading; "
            "this is not a state file that lexmill wrote"
        )
