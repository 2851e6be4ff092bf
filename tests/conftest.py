"""What holds for every test: nothing is fetched, nothing is reported, one thread a process."""

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# Shared machines stall now and then; a slow example is no fault.
settings.register_profile("lexmill", deadline=None, print_blob=True)
settings.load_profile("lexmill")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real corpora that LEXMILL_DATA names."""
    folder = os.environ.get("LEXMILL_DATA")
    if not folder:
        pytest.skip("LEXMILL_DATA is not set: it names the folder with the real corpora")
    return Path(folder)
