"""The ledger of documents that were taken down: ``takedown.jsonl`` in the corpus directory.

One line a place that such a document was found at. Its ids are those of the text as it was read
and as it was cleaned; ingest and clean leave them out for ever after.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from preprocessing.documents import Rejected
from preprocessing.storage import InputError, atomic_write, file_digest

LEDGER = "takedown.jsonl"


@dataclass(frozen=True, order=True)
class Entry:
    """A document that is not to be used.

    Attributes:
        id: hexadecimal document id.
        source: the file it was read from, as the document shards name it.
        offset: its place in that file.
        reason: what the person who took it down said.
    """

    id: str
    source: str
    offset: int
    reason: str = ""


def read(path: Path) -> list[Entry]:
    """All entries; none where there is no ledger.

    Raises:
        InputError: a damaged line.
    """
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):  # as bytes: only at \n
        try:
            entries.append(Entry(**json.loads(line)))
            bytes.fromhex(entries[-1].id)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}:{number}: not an entry of the ledger ({error})") from None
    return entries


def append(path: Path, entries: Iterable[Entry]) -> None:
    """Add entries, all or none; those of a place and an id that stand there already are left."""
    known = read(path)
    standing = {(one.id, one.source, one.offset) for one in known}
    new = [one for one in sorted(entries) if (one.id, one.source, one.offset) not in standing]
    if new:
        with atomic_write(path) as file:
            file.write(_lines([*known, *new]).encode())


def ledger_input(corpus: Path) -> dict[str, str]:
    """The ledger as an input of a stage, where there is one."""
    digest = ledger_digest(corpus / LEDGER)
    return {"takedown": digest} if digest else {}


def leave_out(
    documents: pa.RecordBatch, ids: frozenset[bytes]
) -> tuple[pa.RecordBatch, list[Rejected]]:
    """The documents without those that were taken down, and these."""
    if not ids:
        return documents, []
    goes = pc.is_in(documents.column("id"), value_set=pa.array(sorted(ids), pa.binary(16)))
    rows = documents.filter(goes).select(["id", "source", "offset"]).to_pylist()
    rejected = [
        Rejected("taken_down", row["source"], row["offset"], "see the ledger", row["id"].hex())
        for row in rows
    ]
    return (documents.filter(pc.invert(goes)) if rows else documents), rejected


def ledger_digest(path: Path) -> str | None:
    """What identifies the ledger as an input; None where there is none."""
    return file_digest(path) if path.exists() else None


def taken_down(path: Path) -> frozenset[bytes]:
    """The ids to leave out; read once a process for each state of the ledger."""
    digest = ledger_digest(path)
    return _ids(path, digest) if digest else frozenset()


@lru_cache(maxsize=4)
def _ids(path: Path, digest: str) -> frozenset[bytes]:
    return frozenset(bytes.fromhex(entry.id) for entry in read(path))


def _lines(entries: Sequence[Entry]) -> str:
    return "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in entries)
