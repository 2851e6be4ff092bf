"""What no given configuration refers to below their corpus directories, and taking it away.

Only files that the stages write are ever named: those of directories that bear a manifest or
records of ours, and of those only what has a name of ours. Whatever else lies there stays, and so
does the directory that holds it. Symbolic links are never followed and never removed. A directory
that a running writer holds is left alone and told of, and so is a corpus with an unfinished
takedown.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from preprocessing.errors import InputError
from preprocessing.inspection.outputs import stage_directories
from preprocessing.locks import BusyError, exclusive
from preprocessing.places import RemotePath
from preprocessing.records import RECORDS
from preprocessing.settings import Preparation
from preprocessing.storage import LOCK, MANIFEST
from preprocessing.takedown.request import JOURNAL

What = Literal["output that nothing refers to", "temporaries", "orphan shards", "old records"]

UNREFERENCED: What = "output that nothing refers to"

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.writing")
_SHARD = re.compile(r"([^/]+/(copy-\d{3}/(length-\d{5}/)?)?)?part-\d{5,}\.arrow")
_REJECTS = re.compile(r"rejects/[^/]+-\d{5,}\.jsonl")
_RECORD = re.compile(re.escape(RECORDS) + r"/(plan|slices|task-\d{5,})\.json")
_MARKER = re.compile(re.escape(LOCK) + r"(/[0-9a-f]{32}\.json)?")
_OWN_KEYS = {"version", "tool_version", "stage", "configuration", "shards"}


@dataclass(frozen=True)
class Garbage:
    """Files of one directory that may go, for one reason.

    Attributes:
        directory: a stage's.
        what: why.
        files: relative to the directory, with their bytes; ``manifest.json`` first.
        status: ``locked`` where a writer is at work or a takedown is unfinished; such files are
            not removed.
    """

    directory: Path
    what: What
    files: Mapping[str, int]
    status: Literal["found", "locked", "removed"] = "found"

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "directory": str(self.directory),
            "what": self.what,
            "files": sorted(self.files),
            "bytes": self.bytes,
            "status": self.status,
        }


def find_garbage(preparations: Sequence[Preparation]) -> list[Garbage]:
    """What none of the configurations refers to, below any of their corpus directories."""
    roots = sorted({_settled(preparation.corpus.directory) for preparation in preparations})
    wanted = {
        _settled(directory)
        for preparation in preparations
        for directory in stage_directories(preparation).values()
    }
    found: dict[tuple[Path, What], Garbage] = {}
    for root in roots:
        # An unfinished takedown keeps what it needs in hidden folders, and finishes by itself.
        changing = (root / JOURNAL).exists()
        for directory, files in _stage_files(root).items():
            busy = changing or _is_held(directory, files)
            for one in _garbage_of(directory, files, wanted=directory in wanted):
                status: Literal["locked", "found"] = "locked" if busy else "found"
                found[one.directory, one.what] = replace(one, status=status)
    return [found[key] for key in sorted(found)]


def remove_garbage(garbage: Iterable[Garbage]) -> list[Garbage]:
    """Remove the files found, and the directories that nothing is left in.

    Raises:
        OSError: something could not be removed.
    """
    return [_remove(one) if one.status == "found" else one for one in garbage]


def _remove(garbage: Garbage) -> Garbage:
    try:
        with exclusive(garbage.directory):
            still = _still_garbage(garbage)  # a stage may have been there since
            for name in still.files:  # the manifest first: what is not whole must not look so
                (garbage.directory / name).unlink(missing_ok=True)
            if garbage.what == UNREFERENCED and not isinstance(garbage.directory, RemotePath):
                (garbage.directory / LOCK).unlink(missing_ok=True)  # made by holding it
    except BusyError:
        return replace(garbage, status="locked")
    if not isinstance(garbage.directory, RemotePath):
        folders = {
            garbage.directory / parent
            for name in still.files
            for parent in Path(name).parents
            if parent != Path(".") or garbage.what == UNREFERENCED
        }
        for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
            with contextlib.suppress(OSError):  # something is left in it
                folder.rmdir()
    return replace(still, status="removed")


def _still_garbage(garbage: Garbage) -> Garbage:
    """Those of the files that are there for the same reason still."""
    files = _stage_files(garbage.directory).get(garbage.directory, {})
    now = _garbage_of(garbage.directory, files, wanted=garbage.what != UNREFERENCED)
    names = next((one.files for one in now if one.what == garbage.what), {})
    return replace(garbage, files={n: s for n, s in garbage.files.items() if n in names})


def _garbage_of(directory: Path, files: Mapping[str, int], *, wanted: bool) -> list[Garbage]:
    temporaries = {name: size for name, size in files.items() if _TEMPORARY.fullmatch(_last(name))}
    manifest = _manifest(directory) if MANIFEST in files else None
    listed = set() if manifest is None else {shard["name"] for shard in manifest["shards"]}
    if not wanted:
        own = [
            name
            for name in files
            if name in listed
            or name in temporaries
            or name == MANIFEST
            or any(form.fullmatch(name) for form in (_SHARD, _REJECTS, _RECORD, _MARKER))
        ]
        # The lock goes last: until then it keeps others away.
        own.sort(key=lambda name: (name != MANIFEST, name.startswith(LOCK), name))
        return [Garbage(directory, UNREFERENCED, {n: files[n] for n in own})]
    kinds: dict[What, dict[str, int]] = {"temporaries": temporaries}
    if manifest is not None:
        kinds["orphan shards"] = {
            name: size
            for name, size in files.items()
            if _SHARD.fullmatch(name) and name not in listed
        }
        kinds["old records"] = {
            name: size for name, size in files.items() if _RECORD.fullmatch(name)
        }
    return [Garbage(directory, what, names) for what, names in kinds.items() if names]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


# -- what lies there -------------------------------------------------------------------------------


def _stage_files(root: Path) -> dict[Path, dict[str, int]]:
    """Files and bytes below every directory that bears a manifest or records of ours."""
    everything = _list_files(root)
    directories: list[Path] = []
    for path in everything:
        parent = path.parent
        if (path.name == MANIFEST and _manifest(parent) is not None) or (
            path.name == "plan.json" and parent.name == RECORDS
        ):
            directory = parent.parent if parent.name == RECORDS else parent
            if not any(part.startswith(".") for part in directory.relative_to(root).parts):
                directories.append(directory)
    found: dict[Path, dict[str, int]] = {directory: {} for directory in sorted(set(directories))}
    for path, size in everything.items():
        # The innermost one owns a file.
        owner = next((parent for parent in path.parents if parent in found), None)
        if owner is not None:
            found[owner][path.relative_to(owner).as_posix()] = size
    return found


def _list_files(root: Path) -> dict[Path, int]:
    """Plain files below a directory with their bytes; symbolic links are not there."""
    files: dict[Path, int] = {}
    if isinstance(root, RemotePath):
        for far, size in root.find().items():
            files[far] = size
        return files
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                files[path] = path.stat().st_size
    return files


def _manifest(directory: Path) -> Any:
    """A manifest of ours, of any version; None where it is something else."""
    try:
        plain = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        ours = set(plain) >= _OWN_KEYS and all("name" in shard for shard in plain["shards"])
    except (InputError, OSError, ValueError, TypeError):
        return None
    return plain if ours else None


def _is_held(directory: Path, files: Mapping[str, int]) -> bool:
    """Whether a writer is at work; asks without leaving anything behind."""
    if not any(name.startswith(LOCK) for name in files):
        return False
    try:
        with exclusive(directory):
            return False
    except BusyError:
        return True


def _settled(directory: Path) -> Path:
    """One spelling of each place."""
    return directory if isinstance(directory, RemotePath) else directory.resolve()
