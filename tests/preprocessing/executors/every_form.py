"""One small corpus with a source of every form, and what each stage has to make of it.

Every record is counted by hand: beside the files of a source stands how many documents ingest
finds in them and how many records it rejects for which reason; what the later stages drop is told
by the tests. Texts are drawn by number, no number twice, so that nothing repeats by accident.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import datasets
from corpora import prepare_config, run_stages, tree
from numbered_texts import DIRTY, LARGE, QUESTION, UNTIDY, de, en, near, prose, zh
from raw_files import (
    arrow,
    articles,
    blocks,
    cut,
    jsonl,
    labelled,
    megatron,
    parquet,
    twice,
    word_list,
    zstd,
)
from tokenizers import Tokenizer, models, pre_tokenizers

from configs.schema import load
from preprocessing.settings import Preparation, decode_preparation


@dataclass(frozen=True)
class Origin:
    """A source of one form.

    Attributes:
        reading: keys of its configuration beside ``inputs``.
        files: bytes by file name.
        documents: that ingest finds.
        rejects: records that it does not take, by reason.
    """

    reading: Mapping[str, Any]
    files: Mapping[str, bytes]
    documents: int
    rejects: Mapping[str, int]


@cache
def origins() -> Mapping[str, Origin]:
    """The sources by name."""
    return {
        "text": Origin(
            {"form": "text", "language": "en", "licence": "CC0-1.0"},
            {
                "a.txt": blocks(en(0, 20))
                + b"caf\xe9, and no more of it\n\n \t\n"
                + blocks([LARGE, *en(20, 40)]),
                "b.txt.gz": twice(gzip.compress, blocks(en(40, 46))),
                "c.txt.zst": twice(zstd, blocks(en(46, 52))),
                "d.txt.bz2": twice(bz2.compress, blocks(en(52, 56))),
                "e.txt.xz": twice(lzma.compress, blocks(en(56, 60))),
                # The second member breaks off before it has said anything.
                "f.txt.gz": gzip.compress(blocks(en(60, 64))) + gzip.compress(b"lost")[:11],
            },
            documents=40 + 6 + 6 + 4 + 4 + 4,
            rejects={"invalid_bytes": 1, "oversized": 1, "damaged_archive": 1},
        ),
        "lines": Origin(
            {
                "form": "lines",
                "language": "de",
                "licence": "CC-BY-4.0",
                "encoding": "cp1252",
                "invalid_bytes": "replace",
                "oversized": "split",
            },
            {
                # What 0x81 should be, code page 1252 does not say.
                "a.txt": "\n".join(de(0, 10)).encode("cp1252")
                + b" \x81\x81\n\n"
                + " ".join(de(50, 58)).encode("cp1252"),
                "b.txt": b"\xef\xbb\xbf" + "\r\n".join(de(10, 16)).encode(),
            },
            documents=10 + 2 + 6,  # the long line is two
            rejects={},
        ),
        "file": Origin(
            {"form": "file", "language": "zh"},
            {
                "1.txt": zh(0, 1)[0].encode(),
                "2.txt": zh(1, 2)[0].encode("utf-16"),
                "3.txt.gz": twice(gzip.compress, zh(2, 3)[0].encode()),
                "4.txt.zst": twice(zstd, zh(3, 4)[0].encode()),
                "5.txt.bz2": twice(bz2.compress, zh(4, 5)[0].encode()),
                "6.txt.xz": twice(lzma.compress, zh(5, 6)[0].encode()),
                "7.txt": b"",
                "8.txt": b" \r\n\t\n",
                "9.txt": b"\xe4\xb8",
                "10.txt": LARGE.encode(),
                "11.txt.gz": b"this is no archive",
            },
            documents=6,
            rejects={"empty_text": 2, "invalid_bytes": 1, "oversized": 1, "damaged_archive": 1},
        ),
        "jsonl": Origin(
            {
                "form": "jsonl",
                "text_field": "body.text",
                "language_field": "lang",
                "licence_field": "terms",
                "licence": "unknown",
            },
            {
                "a.jsonl": jsonl(
                    [
                        *labelled(en(100, 112), "en", "MIT"),
                        *labelled(list(DIRTY.values()), "en"),
                        *labelled(UNTIDY, "en"),
                        *labelled(de(100, 104), "de"),
                        *labelled([prose("fr", 0)], "fr"),
                        *labelled(["", " \n", LARGE], "en"),
                        {"body": {"text": None}},
                        {"body": {}, "text": "not here"},
                        {"body": {"text": 7}},
                        7,
                    ]
                )
                + b'{"body": {"text": "cut\n'
                + b'{"body": {"text": "caf\xe9"}}\n'
                + b'{"body": {"text": "half a pair: \\ud800"}}\n'
                + b'{"body": {"text": "one"}, "body": {"text": "or the other"}}\n',
                "b.jsonl.zst": twice(zstd, jsonl(labelled(en(112, 118), "en", "MIT"))),
                "c.jsonl.bz2": twice(bz2.compress, jsonl(labelled(zh(100, 103), "zh"))),
            },
            documents=12 + 10 + 5 + 4 + 1 + 6 + 3,
            rejects={
                "empty_text": 2,
                "oversized": 1,
                "missing_text": 3,
                "invalid_json": 3,  # a number, the cut one, the one with two texts
                "invalid_bytes": 1,
                "lone_surrogate": 1,
            },
        ),
        "json": Origin(
            {"form": "json", "language": "en"},
            {
                "a.json": b"["
                + ", ".join(json.dumps({"text": text}) for text in en(200, 208)).encode()
                + b', {"text": "caf\xe9"}, {"text": "\\udc00"}, {"text" "colon"}, {}, "", '
                + json.dumps({"text": LARGE}).encode()
                + b"]",
                # Nothing of other sources is here but these: one text again, one nearly so.
                "b.json.xz": twice(
                    lzma.compress,
                    json.dumps([{"text": prose("en", 3)}, near(prose("en", 4))]).encode(),
                ),
                "c.json.gz": gzip.compress(b'{"text": "no array"}'),
                "d.json": json.dumps(en(208, 210)).encode()[:-1],
            },
            documents=8 + 2 + 1,  # the array that does not end loses its last element
            rejects={
                "invalid_bytes": 1,
                "lone_surrogate": 1,
                "invalid_json": 3,
                "missing_text": 1,
                "empty_text": 1,
                "oversized": 1,
            },
        ),
        "csv": Origin(
            {"form": "csv", "text_field": "body", "language_field": "lang", "delimiter": ";"},
            {
                "a.csv": b"id;lang;body\n"
                + "".join(f'1;en;"{text}"\n' for text in en(300, 306)).encode()
                + "".join(f"2;de;{text}\r\n" for text in de(300, 304)).encode()
                + f"3;fr;{prose('fr', 1)}\n".encode()
                + '4;;"{}"\n'.format(prose("en", 306).replace(". ", ".\n", 1)).encode()
                + b"5;en;\n6;en\n7;en;two;many\n8;en;caf\xe9\n"
                + f"9;en;{LARGE}\n".encode(),
                "b.csv.bz2": twice(
                    bz2.compress, ("id;lang;body\n" + f"1;de;{prose('de', 304)}\n").encode()
                ),
                "c.csv": b'id;lang;body\n1;en;"a quote that no other ends',
            },
            documents=6 + 4 + 1 + 1 + 1,
            rejects={"empty_text": 1, "invalid_csv": 3, "invalid_bytes": 1, "oversized": 1},
        ),
        "tsv": Origin(
            {"form": "tsv", "text_field": ["2", "3"], "quote": None, "header": False},
            {
                "a.tsv": "".join(
                    f'{number}\tA "title of the text.\t{text}\n'
                    for number, text in enumerate([*en(320, 325), *de(320, 324), prose("fr", 2)])
                ).encode()
                + b"10\t\t\n11\tone\n",
                "b.tsv.xz": twice(lzma.compress, f"0\t\t{prose('en', 325)}\n".encode()),
            },
            documents=5 + 4 + 1 + 1,
            rejects={"empty_text": 1, "invalid_csv": 1},
        ),
        "parquet": Origin(
            {"form": "parquet", "text_field": "content", "language_field": "lang"},
            {
                "a.parquet": parquet([*en(400, 410), None, "", LARGE, *en(410, 412)]),
                "b.parquet": cut(parquet(en(412, 414)), 6),
            },
            documents=12,
            rejects={"missing_text": 1, "empty_text": 1, "oversized": 1, "damaged_archive": 1},
        ),
        "arrow": Origin(
            {"form": "arrow", "language": "en", "licence": "ODC-By"},
            {
                "a.arrow": arrow([*en(420, 428), None], stream=False),
                "b.arrow": arrow([*en(428, 434), " ", LARGE], stream=True),
                # The last of its three batches is cut.
                "c.arrow": cut(arrow(en(434, 443), stream=True), 200),
            },
            documents=8 + 6 + 6,
            rejects={"missing_text": 1, "empty_text": 1, "oversized": 1, "damaged_archive": 1},
        ),
        "wikiextractor": Origin(
            {"form": "wikiextractor", "language": "de", "licence": "CC-BY-SA-4.0"},
            {
                "wiki_00": (
                    "stray\n" + articles([*de(500, 506), "", LARGE]) + '<doc id="8">\nopen\n'
                ).encode()
                + articles(["caf?"]).encode().replace(b"?", b"\xe9"),
                "wiki_01.gz": twice(gzip.compress, articles(de(506, 509)).encode()),
                "wiki_02": jsonl([{"id": 1, "text": text} for text in de(509, 511)])
                + b'{"id": 2}\n{"id": 3\n',
            },
            documents=6 + 3 + 2,
            rejects={
                "invalid_markup": 2,
                "empty_text": 1,
                "oversized": 1,
                "invalid_bytes": 1,
                "missing_text": 1,
                "invalid_json": 1,
            },
        ),
        "megatron": Origin(
            {"form": "megatron", "language": "en"},
            megatron([*en(600, 605), "", *en(605, 610)]),
            documents=10,
            rejects={"empty_text": 1},
        ),
        "datasets": Origin(
            {"form": "datasets", "language": "en"},
            {},  # the library writes them
            documents=10,
            rejects={"missing_text": 1, "empty_text": 1},
        ),
        "exam": Origin(
            {"form": "jsonl", "language": "en"},
            {
                "a.jsonl.gz": twice(
                    gzip.compress,
                    jsonl([{"text": text} for text in [*en(800, 806), near(prose("en", 10))]]),
                ),
            },
            documents=7,
            rejects={},
        ),
    }


DATASET = [*en(700, 704), prose("en", 100), None, "", *en(704, 708), near(prose("en", 420))]
"""What the library writes; one text stands in ``jsonl``, too, and one nearly in ``arrow``."""

VALIDATION = "exam"
"""The source that is a validation set of its own files; ``heldout`` is a share of the others."""


# -- configuration -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Made:
    """What one process, one task after the other, made of the corpus: what all others must make.

    Attributes:
        preparation: decoded from ``recipe.yaml`` in ``folder``.
        folder: where the recipe and the raw files lie.
        files: all that was written, by its path in the corpus's directory.
    """

    preparation: Preparation
    folder: Path
    files: Mapping[str, bytes] = field(repr=False)

    def elsewhere(self, directory: Path) -> Preparation:
        """The same preparation with another directory to write to."""
        recipe = self.folder / "recipe.yaml"
        return decode_preparation(load(recipe, [f"corpus.directory={directory}"]))


def make_every_form(folder: Path) -> Made:
    """Write the corpus, and go the whole road with one worker."""
    preparation = prepare_every_form(folder)
    run_stages(preparation)
    return Made(preparation, folder, tree(preparation.corpus.directory))


def differing(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """The files that are not the same, by name; all of their bytes would tell nobody anything."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if found.get(name) != expected.get(name))


def prepare_every_form(folder: Path) -> Preparation:
    """Write the corpus, and a recipe for all of the road."""
    sections: dict[str, Any] = {}
    for name, origin in origins().items():
        place = folder / "raw" / name
        place.mkdir(parents=True)
        for file, data in origin.files.items():
            (place / file).write_bytes(data)
        inputs = [str(place)]
        reading = dict(origin.reading)
        if name == "datasets":
            rows = datasets.Dataset.from_dict({"text": DATASET})
            rows.save_to_disk(str(place), num_shards=2)
        if name == "megatron":
            inputs = [str(place / "*.bin")]
            reading["megatron_tokenizer"] = str(_write_tokenizer(folder))
        sections[name] = {"inputs": inputs, "max_document_bytes": 2048, **reading}
    (folder / "quiz.jsonl").write_text(json.dumps({"text": QUESTION}))
    exam = sections.pop(VALIDATION)
    return prepare_config(
        folder,
        corpus={
            "inputs": [],
            "sources": sections,
            "validation": {VALIDATION: exam, "heldout": {"share": 0.1}},
            "clean": {
                "identify_language": True,
                "languages": ["en", "de", "zh"],
                "profiles": {
                    "default": {"gopher": {"min_words": 30}},
                    "en": {"c4": {"min_sentences": 3}},
                },
                "decontaminate": {"sets": {"quiz": {"inputs": [str(folder / "quiz.jsonl")]}}},
            },
            "deduplicate": {"near": {"ngram": 3}},
            "shard_bytes": 4096,
            "allowed_reject_share": 0.5,
        },
        tokenizer={"kind": "wordpiece", "vocab_size": 400},
    )


def _write_tokenizer(folder: Path) -> Path:
    words = {word: number for number, word in enumerate(word_list())}
    tokenizer = Tokenizer(models.WordLevel(words, "[PAD]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "words.json"))
    return folder / "words.json"
