"""A run's checkpoints in an object store, where there is no rename: a marker makes one whole.

    s3://bucket/run/
      latest                     the name of the newest, for people and tools
      step-00001000/
        deepspeed/ ...           the files of all hosts
        state.json
        COMPLETE.json            the same record, written last: sizes and digests of all files

A checkpoint without its marker is not there. The newest is the one with the highest step: a run
that was set back takes away the markers of what it does again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TypeVar

import fsspec

from configs.schema import ConfigError
from pipeline.training.checkpoints.checkpoint import (
    LATEST,
    STATE_FILE,
    Checkpoints,
    State,
    parse_record,
    superseded,
    to_record,
)
from pipeline.training.checkpoints.integrity import find_damage, force
from preprocessing.storage import InputError

COMPLETE = "COMPLETE.json"
PAUSES = (1.0, 4.0)
"""Seconds between the attempts at what failed; stores' own libraries retry below that."""

Result = TypeVar("Result")


class RemoteCheckpoints:
    """The checkpoints of one run below a URL that fsspec knows.

    Every method raises :class:`InputError` where the store still fails after some attempts.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            local = {"auto_mkdir": True} if fsspec.utils.get_protocol(url) == "file" else {}
            self._store, self._root = fsspec.core.url_to_fs(self.url, **local)
        except (ImportError, ValueError) as error:
            raise ConfigError(
                [
                    f"output.upload: {url}: {error}; for s3:// install lexmill[s3], for other "
                    "stores the library that fsspec names"
                ]
            ) from None

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, in order."""
        return sorted(self._numbers(self._find(f"step-*/{COMPLETE}"), parent=True))

    def forget(self, abandoned: Callable[[int], bool]) -> None:
        """Let checkpoints count no more, by their steps."""
        complete = self.steps()
        left = [step for step in complete if not abandoned(step)]
        if left and left[-1] != complete[-1]:
            self._name_newest(left[-1])
        for step in complete:
            if step not in left:
                self._try("remove", self._marker(step), self._store.rm_file)

    def upload(self, step: int, directory: Path, names: Iterable[str]) -> None:
        """Copy files of a checkpoint; it does not count before :meth:`complete`."""
        for name in names:
            source, target = directory / name, f"{self._path(step)}/{name}"

            def put(target: str, source: Path = source) -> None:
                self._store.put_file(str(source), target)
                self._store.invalidate_cache()
                arrived = self._store.info(target)["size"]
                if arrived != source.stat().st_size:
                    raise OSError(f"{arrived} bytes arrived of {source}")

            self._try("write", target, put)

    def complete(self, step: int, state: State) -> None:
        """Mark a checkpoint whose files are all there as whole, and as the newest."""
        text = json.dumps(to_record(state), indent=1, sort_keys=True, ensure_ascii=False)
        for name in (STATE_FILE, COMPLETE):
            self._write(f"{self._path(step)}/{name}", text + "\n")
        self._name_newest(step)

    def prune(self, keep: int, milestone_every: int | None) -> None:
        """Remove all but the newest ``keep`` and the milestones, and what was never completed."""
        complete = self.steps()
        removed = set(superseded(complete, keep, milestone_every))
        for step in self._numbers(self._find("step-*"), parent=False):
            if step in removed:
                self._try("remove", self._marker(step), self._store.rm_file)
            if step in removed or (step not in complete and step < complete[-1]):
                self._try("remove", self._path(step), self._remove_folder)

    def fetch(self, step: int, checkpoints: Checkpoints) -> Path:
        """Bring a complete checkpoint to the disk, every file compared with its digest.

        Raises:
            InputError: a file is not there, or not the one that was uploaded.
        """
        marker = self._try("read", self._marker(step), self._store.cat_file)
        try:
            state = parse_record(json.loads(marker), self._marker(step))
        except ValueError as error:
            raise InputError(f"{self._marker(step)}: damaged: {error}") from None
        writing = checkpoints.begin(step)
        for name in state.files:
            pure = PurePosixPath(name)
            if pure.is_absolute() or ".." in pure.parts:
                raise InputError(f"{self._marker(step)}: names a file outside its folder: {name}")
            target = writing / name
            target.parent.mkdir(parents=True, exist_ok=True)

            def get(source: str, target: Path = target) -> None:
                self._store.get_file(source, str(target))

            self._try("read", f"{self._path(step)}/{name}", get)
            force(target)
        if damage := find_damage(writing, state.files, state.files):
            raise InputError(
                f"{damage}; it was fetched from {self.url}/step-{step:08d}: remove that folder to "
                "go on from the checkpoint before it"
            )
        return checkpoints.complete(step, state)

    def _path(self, step: int) -> str:
        return f"{self._root}/step-{step:08d}"

    def _marker(self, step: int) -> str:
        return f"{self._path(step)}/{COMPLETE}"

    def _name_newest(self, step: int) -> None:
        self._write(f"{self._root}/{LATEST}", f"step-{step:08d}\n")

    def _find(self, pattern: str) -> list[str]:
        def find(pattern: str) -> list[str]:
            self._store.invalidate_cache()
            return list(self._store.glob(pattern))

        return self._try("list", f"{self._root}/{pattern}", find)

    def _numbers(self, paths: Iterable[str], *, parent: bool) -> list[int]:
        names = [PurePosixPath(path).parts[-2 if parent else -1] for path in paths]
        return [int(name[5:]) for name in names if name[5:].isdecimal()]

    def _write(self, path: str, text: str) -> None:
        self._try("write", path, lambda path: self._store.pipe_file(path, text.encode()))

    def _remove_folder(self, path: str) -> None:
        self._store.rm(path, recursive=True)
        self._store.invalidate_cache()

    def _try(self, what: str, path: str, action: Callable[[str], Result]) -> Result:
        for pause in (*PAUSES, None):
            try:
                return action(path)
            except Exception as error:  # every store's library raises kinds of its own
                if pause is None:
                    place = self._store.unstrip_protocol(path)
                    sentence = f"{place}: could not {what}: {type(error).__name__}: {error}"
                    raise InputError(sentence) from error
                time.sleep(pause)
        raise AssertionError


def open_remote(url: str | None) -> RemoteCheckpoints | None:
    """The store that checkpoints are uploaded to, if any.

    Raises:
        ConfigError: the URL is of no store that can be reached with what is installed.
    """
    return RemoteCheckpoints(url) if url is not None else None
