"""Compiled code is kept, wherever there is a place for it, and never taken from strangers."""

import hashlib
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numba
import pytest
from numba.core.dispatcher import Dispatcher

import preprocessing
from preprocessing import compiled

ROOT = Path(__file__).parents[3]
LOADED = """
from preprocessing.tokenization.dictionary import _look_up
hits = sum(_look_up.stats.cache_hits.values())
print(hits, sum(_look_up.stats.cache_misses.values()))
"""


def test_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LOADED]
    results = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert [result.split() for result in results] == [["0", "1"], ["1", "0"]]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Neither the package nor the home may be written; the temporary folder is this one."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(compiled.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_cache_lies_in_a_private_temporary_folder_where_there_is_no_other(nowhere: Path) -> None:
    compiled._ensure_a_cache()
    own = nowhere / f"lexmill-{os.getuid()}"
    assert os.environ["NUMBA_CACHE_DIR"] == numba.config.CACHE_DIR == str(own)
    assert own.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("fault", ["open to others", "a link"])
def test_folder_that_others_may_write_is_not_trusted(nowhere: Path, fault: str) -> None:
    own = nowhere / f"lexmill-{os.getuid()}"
    if fault == "a link":
        (nowhere / "theirs").mkdir()
        own.symlink_to(nowhere / "theirs")
    else:
        own.mkdir()
        own.chmod(0o777)
    compiled._ensure_a_cache()
    assert os.environ["NUMBA_CACHE_DIR"] != str(own)


def test_cache_that_is_given_is_kept(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/given")
    compiled._ensure_a_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == "/given"


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(preprocessing.__path__, "preprocessing."):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def files_called(module: ModuleType) -> set[Path]:
    """Files of the compiled functions that those of a module call, without its own."""
    here = [value for value in vars(module).values() if isinstance(value, Dispatcher)]
    own = [value for value in here if value.py_func.__module__ == module.__name__]
    called = {getattr(module, name, None) for one in own for name in one.py_func.__code__.co_names}
    return {
        Path(str(sys.modules[one.py_func.__module__].__file__))
        for one in called
        if isinstance(one, Dispatcher) and one not in own
    }


def test_no_kernel_outlives_a_change_of_what_was_compiled_into_it() -> None:
    checked = 0
    for module in modules():
        said = getattr(module, "COMPILED_WITH", {})
        found = {
            path.name: hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
            for path in files_called(module)
        }
        assert said == found, f"{module.__name__}: bring COMPILED_WITH up to date"
        checked += len(found)
    assert checked >= 4
