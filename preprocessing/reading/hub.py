"""Datasets of the Hugging Face library: folders written by ``save_to_disk``, and the hub.

A folder's files are Arrow streams, which are read without the library. A dataset on the hub is
streamed, one task a shard of it; its revision is pinned to a commit before the first one starts.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from preprocessing.reading.base import Found, Reject
from preprocessing.reading.columnar import BATCH_ROWS
from preprocessing.reading.fields import Rows, add_value
from preprocessing.reading.listing import Listing
from preprocessing.reading.settings import ReadingConfig
from preprocessing.reading.sources import Source, shown
from preprocessing.redaction import redact
from preprocessing.storage import InputError

_HUB = "hub://"


def list_datasets(inputs: Sequence[str], reading: ReadingConfig) -> Listing:
    """The Arrow files of folders, and the shards of datasets on the hub.

    Raises:
        InputError: no such folder or dataset, or it has several splits and none is chosen.
    """
    sources: dict[str, Source] = {}
    for name in inputs:
        found = _folder(Path(name), reading) if os.path.isdir(name) else _hub(name, reading)
        sources |= {source.url: source for source in found}
    return Listing(tuple(sources.values()), ())


def is_hub(source: Source) -> bool:
    """Whether a source is a shard of a dataset on the hub."""
    return source.url.startswith(_HUB)


def _folder(folder: Path, reading: ReadingConfig) -> list[Source]:
    name = shown(str(folder))
    if (folder / "dataset_dict.json").exists():
        splits = _json(folder / "dataset_dict.json").get("splits", [])
        if reading.dataset_split not in splits:
            raise InputError(
                f"{name}: choose one of its splits by dataset_split: {', '.join(splits)}"
            )
        folder = folder / str(reading.dataset_split)
    elif not (folder / "state.json").exists():
        raise InputError(
            f"{name}: save_to_disk did not write this folder; give its files as inputs and say "
            "what form they have"
        )
    state = _json(folder / "state.json")
    files = [folder / str(row["filename"]) for row in state.get("_data_files", [])]
    for path in files:
        if not path.exists():
            raise InputError(f"{shown(str(path))}: is missing, and state.json names it")
    return [Source(str(path.absolute()), path.stat().st_size) for path in files]


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(str(path))}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{shown(str(path))}: is none of the datasets library's")
    return value


def _hub(name: str, reading: ReadingConfig) -> list[Source]:
    revision = _commit(name, reading)
    options = {
        "config": reading.dataset_config,
        "split": reading.dataset_split or "train",
        "revision": revision,
    }
    query = urlencode({key: value for key, value in options.items() if value is not None})
    count = _stream(name, query).num_shards
    return [
        Source(f"{_HUB}{quote(name)}?{query}#{index}/{count}", 0, f"{revision}/{index}/{count}")
        for index in range(count)
    ]


def _commit(name: str, reading: ReadingConfig) -> str | None:
    """The commit that a branch or tag points to; as it was given where the hub is not to be asked.

    Raises:
        InputError: there is no such dataset, or no way to the hub.
    """
    try:
        from huggingface_hub import HfApi, constants
    except ImportError:
        raise _no_library() from None
    if constants.HF_HUB_OFFLINE:
        return reading.dataset_revision
    try:
        info = HfApi().dataset_info(name, revision=reading.dataset_revision, timeout=30.0)
    except Exception as error:  # the library has kinds of its own, and so has what is beneath it
        raise _unknown(name, error) from None
    return str(info.sha)


@cache
def _stream(name: str, query: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise _no_library() from None
    options = {key: values[0] for key, values in parse_qs(query).items()}
    try:
        return datasets.load_dataset(
            name,
            options.get("config"),
            split=options["split"],
            revision=options.get("revision"),
            streaming=True,
        )
    except Exception as error:
        raise _unknown(name, error) from None


def _no_library() -> InputError:
    return InputError("form 'datasets' needs a library: pip install datasets")


def _unknown(name: str, error: Exception) -> InputError:
    return InputError(
        f"{shown(name)}: neither a folder that save_to_disk wrote nor a dataset that the hub "
        f"gives (dataset_config, dataset_split, dataset_revision): {redact(str(error))[:500]}"
    )


def hub_rows(source: Source, reading: ReadingConfig) -> Iterator[Found | Reject]:
    """The rows of a shard of a dataset on the hub; offsets count them.

    Raises:
        InputError: the hub gives it no more.
    """
    address, _, number = source.url.removeprefix(_HUB).partition("#")
    name, _, query = address.partition("?")
    name = unquote(name)
    index, count = map(int, number.split("/"))
    stream = iter(_stream(name, query).shard(num_shards=count, index=index))
    for begin in itertools.count(0, BATCH_ROWS):
        rows = Rows()
        try:
            values = list(itertools.islice(stream, BATCH_ROWS))
        except Exception as error:
            raise _unknown(name, error) from None
        for offset, value in enumerate(values, begin):
            if reject := add_value(value, offset, reading, rows):
                yield reject
        if rows.texts:
            yield rows.take()
        if len(values) < BATCH_ROWS:
            return
