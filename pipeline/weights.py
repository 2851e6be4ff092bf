"""Weights on disk: safetensors, readable by whoever may read the files around them."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write contiguous tensors as safetensors, with the permissions of an ordinary new file.

    Raises:
        OSError: they could not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    permissions = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(dict(tensors), str(path), metadata={"format": "pt"})
    except SafetensorError as error:  # it tells a full disk so
        raise OSError(f"{path}: {error}") from error
    path.chmod(permissions)  # safetensors makes files that only their owner can read
