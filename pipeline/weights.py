"""Weights on disk: safetensors, readable by whoever may read the files around them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write contiguous tensors as safetensors, with the permissions of an ordinary new file."""
    from safetensors.torch import save_file

    save_file(dict(tensors), str(path), metadata={"format": "pt"})
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # safetensors makes files that only their owner can read
