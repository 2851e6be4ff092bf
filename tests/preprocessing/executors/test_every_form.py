"""What becomes of every record of the corpus with every form, in literal numbers.

These are the numbers with one worker. That five workers, slices and Ray write the same bytes is
tested with the executors; so they have the same numbers.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import pytest
from every_form import VALIDATION, Made, origins
from numbered_texts import DIRTY

from preprocessing.reading.archives import SUFFIXES, compression_by_name
from preprocessing.reading.base import Reason
from preprocessing.reading.settings import Form
from preprocessing.storage import Manifest

Rejects = Mapping[str, Mapping[str, int]]
"""Source -> reason -> how many."""

INGESTED: Mapping[str, Mapping[str, int]] = {
    "documents by language": {"": 12, "de": 38, "en": 173, "fr": 2, "zh": 9},
    "documents by licence": {
        "": 80,
        "CC-BY-4.0": 18,
        "CC-BY-SA-4.0": 11,
        "CC0-1.0": 64,
        "MIT": 18,
        "ODC-By": 20,
        "unknown": 23,
    },
    "replaced bytes by source": {"train/lines": 2},
    "split documents by source": {"train/lines": 1},
    "NUL characters by source": {"train/jsonl": 3},
}
"""No language stands in ``tsv``, and in one row of ``csv``."""

DROPPED: Rejects = {
    "csv": {"language": 1},
    "jsonl": {**dict.fromkeys(DIRTY, 1), "language": 1},
    "lines": {"gopher_duplicate_5gram": 2},  # the halves of the long line, which repeats itself
    "tsv": {"language": 1},  # which nothing but its words told
}
CLEANED: Mapping[str, Mapping[str, int]] = {
    "documents by language": {"de": 40, "en": 170, "zh": 9},
    "documents by evaluation set": {"quiz": 1},
    "documents repaired": {
        "control_characters": 2,  # nothing is left of one
        "email": 1,
        "html_entities": 1,
        "unicode": 1,
        "white_space": 2,  # one is the first half of the long line, which ends with a space
    },
    "repairs": {
        "control_characters": 4,
        "email": 2,
        "html_entities": 2,
        "unicode": 1,
        "white_space": 4,
    },
}
"""Repairs count whether or not the document stays."""

REPEATED: Rejects = {
    "datasets": {"near_duplicate": 1},  # of one in ``arrow``
    "jsonl": {"exact_duplicate": 1},  # of one in ``datasets``
    # Of two in ``json``, and of one in the validation set, which goes before all.
    "text": {"exact_duplicate": 1, "near_duplicate": 2},
}
DEALT = {"exam": 7, "heldout": 20, "train": 187}
"""Documents in the end: 20 of 207 is what the draw of the seed gives a share of a tenth."""


def logged(directory: Path) -> Rejects:
    """The rows of a stage's reject logs."""
    counts: dict[str, Counter[str]] = {}
    for path in sorted((directory / "rejects").iterdir()):
        split = path.stem.rpartition("-")[0]
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            source = row["source"].partition("/")[0] if split == "train" else split
            counts.setdefault(source, Counter())[row["reason"]] += 1
    return counts


def total(rejects: Rejects) -> Counter[str]:
    return sum((Counter(own) for own in rejects.values()), Counter())


def rows(directory: Path) -> dict[str, int]:
    manifest = Manifest.read(directory)
    return {split: manifest.totals(split)["rows"] for split in manifest.splits}


def test_corpus_has_every_form_archive_and_reason() -> None:
    assert {one.reading["form"] for one in origins().values()} == set(get_args(Form))
    assert set(total({n: one.rejects for n, one in origins().items()})) == set(get_args(Reason))
    archives = {compression_by_name(name) for one in origins().values() for name in one.files}
    assert archives == {None, *SUFFIXES.values()}


@pytest.mark.parametrize("name", origins())
def test_ingest_finds_the_stated_documents_and_rejects(every_form: Made, name: str) -> None:
    directory = every_form.preparation.documents_directory
    tables = Manifest.read(directory).tables
    origin = origins()[name]
    label = name if name == VALIDATION else f"train/{name}"
    assert tables["documents by source"][label] == origin.documents
    assert tables["rejects by source"].get(label, 0) == sum(origin.rejects.values())
    assert logged(directory).get(name, {}) == origin.rejects


def test_ingest_counts_what_is_known_of_the_documents(every_form: Made) -> None:
    manifest = Manifest.read(every_form.preparation.documents_directory)
    assert {name: manifest.tables[name] for name in INGESTED} == INGESTED
    assert manifest.rejects == total({name: one.rejects for name, one in origins().items()})
    documents = sum(one.documents for one in origins().values())
    assert manifest.totals()["rows"] == documents == 234
    assert len(manifest.shards) >= 30


def test_clean_drops_and_repairs_the_stated_documents(every_form: Made) -> None:
    directory = every_form.preparation.filtered_directory
    manifest = Manifest.read(directory)
    assert logged(directory) == DROPPED
    assert manifest.rejects == total(DROPPED)
    assert manifest.tables == CLEANED
    assert manifest.totals()["rows"] == 234 - total(DROPPED).total() == 219


def test_deduplicate_drops_and_deals_the_stated_documents(every_form: Made) -> None:
    directory = every_form.preparation.clean_directory
    assert logged(directory) == REPEATED
    assert Manifest.read(directory).rejects == total(REPEATED)
    assert rows(directory) == DEALT
    assert sum(DEALT.values()) == 219 - total(REPEATED).total()


def test_no_document_is_lost_on_the_way_to_rows(every_form: Made) -> None:
    preparation = every_form.preparation
    assert rows(preparation.tokens_directory) == DEALT
    shards = Manifest.read(preparation.tokens_directory).shards
    assert len(shards) >= 40
    (name,) = preparation.examples
    examples = rows(preparation.examples_directory(name))
    assert {name.rpartition("/")[0] for name in examples} == set(DEALT)
    assert all(examples.values())
