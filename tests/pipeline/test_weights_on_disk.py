"""Weights on disk: who may read them, and what becomes of them where there is no room."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import pytest
import torch

from pipeline.weights import save_weights


def test_weights_have_the_permissions_of_an_ordinary_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_weights(tmp_path / "weights", {"a": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == 0o640


def test_weights_without_room_are_a_fault_of_the_disk(tmp_path: Path) -> None:
    """Ranks stop together at an OSError; of safetensors' own errors they know nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"weights: .*File too large"):
            save_weights(tmp_path / "weights", {"a": torch.ones(1000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
