"""Carrying out a takedown: find every copy, note it, go through the directories in order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from preprocessing import records
from preprocessing.locks import exclusive
from preprocessing.records import RECORDS
from preprocessing.storage import (
    LOCK,
    MANIFEST,
    InputError,
    Manifest,
    file_digest,
    manifest_digest,
    remove_tree,
)
from preprocessing.takedown import ledger, removal, renumbering
from preprocessing.takedown.ledger import LEDGER, Entry
from preprocessing.takedown.removal import Journal
from preprocessing.takedown.search import Place, find_documents
from preprocessing.tokens import digest_of_sources, shards_digest
from preprocessing.vocabulary import Vocabulary

JOURNAL = ".takedown-journal.json"
_DOCUMENTS = ("documents", "filtered", "clean")
_OF_TOKENS = ("counts", "tables", "examples")


@dataclass(frozen=True)
class TakenDown:
    """What a takedown came to.

    Attributes:
        entries: what the ledger has more than before.
        rewritten: shards written anew, by directory.
        removed: directories that the next run makes anew.
    """

    entries: tuple[Entry, ...]
    rewritten: dict[Path, int]
    removed: tuple[Path, ...]


def take_down(
    corpus: Path, ids: Iterable[str], places: Iterable[Place] = (), reason: str = ""
) -> TakenDown:
    """Take documents down; finishes first what an earlier call was cut off in.

    Args:
        corpus: ``corpus.directory``.
        ids: hexadecimal, of documents as they were read or as they were cleaned.
        places: as file and offset, where ids are not known.
        reason: kept in the ledger and the reject log.

    Raises:
        InputError: an id is not one, no document has it, or a stage is running there.
    """
    wanted = {_parsed(one) for one in ids}
    with contextlib.ExitStack() as stack:
        directories = _directories(corpus)
        for directory in directories:
            stack.enter_context(exclusive(directory))
            removal.settle(directory)
        finished = Journal.read(corpus / JOURNAL)
        done = [_carry_out(corpus, directories, finished)] if finished else []
        journal = _begin(corpus, wanted, set(places), reason)
        if journal:
            journal.write(corpus / JOURNAL)
            done.append(_carry_out(corpus, directories, journal))
    rewritten: dict[Path, int] = {}
    for one in done:
        for directory, count in one.rewritten.items():
            rewritten[directory] = rewritten.get(directory, 0) + count
    return TakenDown(
        tuple(entry for one in done for entry in one.entries),
        rewritten,
        tuple(directory for one in done for directory in one.removed),
    )


def _parsed(text: str) -> bytes:
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != 16:
        raise InputError(
            f"{text!r} is not a document id: 32 hexadecimal digits, as 'lexmill inspect' shows them"
        )
    return identity


def _directories(corpus: Path) -> list[Path]:
    """Of all stages of all configurations, finished or not, in the order of the road."""
    found = [
        *(corpus / name for name in _DOCUMENTS[:2]),
        corpus / "duplicates" / "signatures",
        corpus / "duplicates" / "matches",
        corpus / "clean",
        *_below(corpus / "tokenizers"),
        *_below(corpus / "tokens"),
        *(
            path
            for kind in _OF_TOKENS
            for tokens in _below(corpus / kind)
            for path in _below(tokens)
        ),
    ]
    ours = (MANIFEST, RECORDS, LOCK)  # before its records, a stage at work has but a lock
    return [path for path in found if any((path / name).exists() for name in ours)]


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def _begin(corpus: Path, ids: set[bytes], places: set[Place], reason: str) -> Journal | None:
    """Find all that is to go; None where that is nothing."""
    if not ids and not places:
        return None
    known = ledger.taken_down(corpus / LEDGER)
    stores = [path for path in (corpus / name for name in _DOCUMENTS) if (path / MANIFEST).exists()]
    if not stores:
        raise InputError(f"{corpus}: there are no documents here; run ingest first")
    all_ids = set(ids)
    all_places = set(places)
    found = find_documents(stores, all_ids, all_places)
    missing = [one.hex() for one in sorted(ids - known - {one for one, _ in found})]
    missing += [f"{source} {offset}" for source, offset in sorted(places - {p for _, p in found})]
    if missing:
        raise InputError(
            f"{corpus}: no document here is {', '.join(missing[:5])}"
            + (f" or {len(missing) - 5} more" if len(missing) > 5 else "")
            + "; nothing was changed"
        )
    if not found:
        return None
    entries = sorted(Entry(one.hex(), *place, reason) for one, place in found)
    signed, rows = _signed_rows(corpus, all_ids)
    return Journal(entries, ledger.ledger_digest(corpus / LEDGER), signed, rows)


def _signed_rows(corpus: Path, ids: set[bytes]) -> tuple[str | None, dict[int, list[int]]]:
    """The documents that the signatures are of, and which of their rows go."""
    signatures = corpus / "duplicates" / "signatures"
    if not (signatures / MANIFEST).exists():
        return None, {}
    signed = Manifest.read(signatures).inputs["documents"]
    wanted = pa.array(sorted(ids), pa.binary(16))
    for name in _DOCUMENTS[:2]:
        if (corpus / name / MANIFEST).exists() and manifest_digest(corpus / name) == signed:
            shards = Manifest.read(corpus / name).shards
            rows = (removal.rows_of(corpus / name / shard.name, wanted) for shard in shards)
            return signed, {i: own.tolist() for i, own in enumerate(rows) if len(own)}
    return None, {}  # of documents that are no more: the next run refuses it anyway


def _carry_out(corpus: Path, directories: Iterable[Path], journal: Journal) -> TakenDown:
    """Do all that is not done yet, in directories that are held."""
    ledger.append(corpus / LEDGER, journal.entries)
    removed: list[Path] = []
    rewritten: dict[Path, int] = {}
    for directory in directories:
        if not (directory / MANIFEST).exists():
            if (directory / RECORDS).exists():
                _remove(directory)
                removed.append(directory)
            continue
        kind = directory.relative_to(corpus).parts[0]
        if not _can_stay(corpus, kind, Manifest.read(directory), journal):
            _remove(directory)
            removed.append(directory)
            continue
        count = removal.change(
            directory, journal, corpus / JOURNAL, _prepare(corpus, directory, kind, journal)
        )
        if count:
            rewritten[directory] = count
    (corpus / JOURNAL).unlink()
    return TakenDown(tuple(journal.entries), rewritten, tuple(removed))


def _can_stay(corpus: Path, kind: str, manifest: Manifest, journal: Journal) -> bool:
    """Whether what goes can be found in some output, and the rest of it be kept."""
    if kind == "tokens":
        # Its pieces cannot be counted without the vocabulary.
        return _vocabulary(corpus, manifest) is not None and _made_of(
            [corpus / "clean"], manifest.inputs["clean"], journal
        )
    if kind in _OF_TOKENS:
        return _tokens_stay(_below(corpus / "tokens"), manifest, journal)
    return True


def _tokens_stay(directories: Sequence[Path], manifest: Manifest, journal: Journal) -> bool:
    """Whether what some output was made of stands in one of the directories of tokens still."""
    tokens = manifest.inputs["tokens"]
    configuration = manifest.configuration
    sources = configuration.get("examples", configuration).get("sources")
    if sources is None:
        return tokens not in journal.thinned and _made_of(directories, tokens, journal)
    for directory in directories:
        with contextlib.suppress(InputError):  # not of these sources, or not finished
            if digest_of_sources(directory, tuple(sources)) == tokens:
                return True
    return False


def _made_of(directories: Iterable[Path], digest: str, journal: Journal) -> bool:
    """Whether one of them still has that manifest, or what this takedown has made of it.

    Documents that were cleaned differently have other ids, which nobody knows any more.
    """
    manifests = (directory / MANIFEST for directory in directories)
    standing = {file_digest(path) for path in manifests if path.exists()}
    return journal.digests.get(digest, digest) in standing


def _remove(directory: Path) -> None:
    records.clear(directory)  # what is left of it if this is cut off is still known to be ours
    remove_tree(directory)


def _vocabulary(corpus: Path, tokens: Manifest) -> Vocabulary | None:
    """What some tokens were made with, unless it was made anew or removed since."""
    for directory in _below(corpus / "tokenizers"):
        if (directory / MANIFEST).exists():
            vocabulary = Vocabulary.load(directory)
            if vocabulary.digest == tokens.facts["tokenizer"]:
                return vocabulary
    return None


def _sources_of_tokenizers(corpus: Path) -> list[Sequence[str]]:
    """The sources that tokenizers were trained on alone."""
    manifests = (
        Manifest.read(directory)
        for directory in _below(corpus / "tokenizers")
        if (directory / MANIFEST).exists()
    )
    every = (one.configuration["tokenizer"].get("sources") for one in manifests)
    return [sources for sources in every if sources is not None]


def _prepare(corpus: Path, directory: Path, kind: str, journal: Journal) -> removal.Prepare:
    ids = pa.array(sorted({bytes.fromhex(one.id) for one in journal.entries}), pa.binary(16))
    reasons = {one.id: one.reason for one in journal.entries}
    places = {(one.source, one.offset) for one in journal.entries}

    def prepare(staged: Path, old: Manifest) -> Manifest:
        new = removal.chained(old, journal)
        if kind in ("documents", "filtered") and old.inputs.get("takedown") == journal.ledger:
            digest = file_digest(corpus / LEDGER)
            new = replace(new, inputs={**new.inputs, "takedown": digest})
        if kind == "duplicates":
            made_of = old.inputs.get("documents", old.inputs.get("signatures"))
            if made_of == journal.signed or made_of in journal.thinned:
                rows = {shard: np.array(own) for shard, own in journal.rows.items()}
                new = renumbering.without_records(staged, directory, new, rows)
            return new
        if kind not in (*_DOCUMENTS, "tokens"):
            return new
        count: removal.Count = removal.count_text
        if kind == "tokens":
            vocabulary = _vocabulary(corpus, old)
            assert vocabulary is not None
            count = removal.count_tokens(vocabulary.unknown_id)
        new, gone = removal.without_documents(staged, directory, new, ids, count)
        if kind == "clean":
            for sources in _sources_of_tokenizers(corpus):
                journal.digests[shards_digest(old, sources)] = shards_digest(new, sources)
        if kind != "tokens":
            new = replace(new, tables=removal.without_counts(new.tables, gone))
        if kind != "documents":
            return removal.forget_rejects(staged, directory, new, set(reasons), places)
        removal.log_removed(staged, directory, gone, reasons)
        taken = sum(rows.num_rows for _, rows in gone)
        rejects = dict(new.rejects)
        if taken:
            rejects["taken_down"] = rejects.get("taken_down", 0) + taken
            new = replace(new, tables=removal.with_rejects(new.tables, gone))
        return replace(new, rejects=dict(sorted(rejects.items())))

    return prepare
