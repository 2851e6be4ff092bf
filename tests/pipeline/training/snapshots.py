"""What a kill would leave: a copy of a run at every write, fsync, rename and removal of saving."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import pipeline.training.checkpoints.checkpoint as checkpoint
import pipeline.training.checkpoints.integrity as integrity
import preprocessing.storage as storage


class Snapshots:
    """Copies ``output`` to ``target/NNNN-what`` at each moment; use as a context."""

    def __init__(self, output: Path, target: Path) -> None:
        self._output = output
        self._target = target
        self._taken = 0
        self._inside = False
        self.calls: list[tuple[str, Path]] = []

    def take(self, what: str, path: Any = None) -> None:
        """One copy, as the files are now; another rank may be writing them."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").resolve()
        self.calls.append((what, Path(path) if path is not None else self._output))
        if self._inside or not (self._output / "checkpoints").exists():
            return
        self._inside = True
        copy = self._target / f"{self._taken:04d}-{what}"
        _copy_as_it_is(self._output, copy)
        self._taken += 1
        self._inside = False

    @contextlib.contextmanager
    def everywhere(self) -> Iterator[Snapshots]:
        """Take them from here on."""
        write_all, synchronize, rename = storage.write_all, storage.synchronize, storage.rename
        save, save_weights, rmtree = torch.save, checkpoint.save_weights, shutil.rmtree

        def torn(path: Path, write: Callable[[], None], what: str) -> None:
            self.take(f"before-{what}", path)
            write()
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            self.take(f"half-{what}", path)
            path.write_bytes(whole)

        def write_half(file: Any, view: memoryview) -> None:
            half = len(view) // 2
            write_all(file, view[:half])
            self.take("half-write", file.name)
            write_all(file, view[half:])

        def synchronize_after(descriptor: int) -> None:
            self.take("fsync", descriptor)
            synchronize(descriptor)

        def rename_between(source: Path, target: Path) -> None:
            self.take("before-rename", target)
            rename(source, target)
            self.take("after-rename", target)

        def torch_save(state: Any, path: Any, *arguments: Any, **options: Any) -> None:
            if isinstance(path, io.IOBase):
                save(state, path, *arguments, **options)
            else:
                write = lambda: save(state, path, *arguments, **options)  # noqa: E731
                torn(Path(path), write, "torch-save")

        def weights_torn(path: Path, tensors: Any) -> None:
            torn(path, lambda: save_weights(path, tensors), "weights")

        def remove_slowly(path: Any, *arguments: Any, **options: Any) -> None:
            files = [file for file in Path(path).rglob("*") if file.is_file()]
            for file in files[: len(files) // 2 + 1]:
                self.take("removal", file)
                file.unlink()
            rmtree(path, *arguments, **options)

        with contextlib.ExitStack() as stack:
            for module, name, function in (
                (storage, "write_all", write_half),
                (storage, "synchronize", synchronize_after),
                (integrity, "synchronize", synchronize_after),
                (storage, "rename", rename_between),
                (checkpoint, "rename", rename_between),
                (checkpoint, "save_weights", weights_torn),
                (torch, "save", torch_save),
                (shutil, "rmtree", remove_slowly),
            ):
                stack.enter_context(mock.patch.object(module, name, function))
            yield self


def _copy_as_it_is(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        try:
            if path.is_dir():
                copy.mkdir(parents=True, exist_ok=True)
            else:
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        except FileNotFoundError:
            continue  # renamed or removed by another rank just now
