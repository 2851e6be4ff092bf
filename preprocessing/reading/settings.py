"""How raw files are read, as a configuration says it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from configs.schema import config
from preprocessing.reading.encodings import canonical_encoding

Form = Literal[
    "text",
    "lines",
    "file",
    "jsonl",
    "json",
    "csv",
    "tsv",
    "parquet",
    "arrow",
    "wikiextractor",
    "datasets",
    "megatron",
]

FIELD_FORMS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow", "datasets", "wikiextractor")
"""Forms whose records have named fields (WikiExtractor's do in its JSON output)."""

TEXT_FORMS = ("text", "lines", "file", "jsonl", "json", "csv", "tsv", "wikiextractor")
"""Forms that are text, in some encoding, perhaps compressed."""

LINE_FORMS = ("text", "lines", "jsonl")
"""Forms that can be read from any place in a file on."""

Fields = Annotated[
    str | Annotated[tuple[str, ...], pydantic.Field(min_length=1)],
    pydantic.Field(union_mode="left_to_right"),
]


@config
class ReadingConfig:
    """What marks a record, and where its text and what is known of it stand.

    Attributes:
        form: what the files are, compressed (``.gz``, ``.zst``, ``.bz2``, ``.xz``) or not:
            ``text`` (documents separated by blank lines), ``lines`` (one a line), ``file`` (one a
            file), ``jsonl`` (an object or a string a line), ``json`` (one array of them), ``csv``,
            ``tsv``, ``parquet``, ``arrow`` (IPC file or stream), ``wikiextractor`` (its text or
            JSON output), ``datasets`` (a folder written by ``save_to_disk``, or a name on the
            Hugging Face hub), ``megatron`` (``.bin`` with its ``.idx``).
        text_field: key or column of the text, in forms that have any; ``a.b`` leads into an object.
            Of several, those that are there are joined with line ends.
        language_field: key or column of the language code.
        licence_field: key or column of the licence.
        language: of all documents that no field says it of, as ``en``.
        licence: of all documents that no field says it of.
        encoding: of the bytes, by any name Python knows; a byte-order mark goes before it.
        invalid_bytes: ``reject`` the record, or ``replace`` what cannot be decoded by U+FFFD; both
            are counted.
        max_document_bytes: of UTF-8; larger documents are treated as ``oversized`` says.
        oversized: ``reject``, or ``split`` at a line end, else at white space, else between
            characters; both are counted. A JSON value, a row of CSV or TSV, and a WikiExtractor
            article of more than twice ``max_document_bytes``, with all of its fields, quotes and
            escapes, is rejected in any case: it would have to be held in memory as a whole.
        delimiter: of ``csv`` (a comma where none is given) and ``tsv`` (a tab).
        quote: of ``csv`` and ``tsv``; null where quotation marks are text.
        header: the first row of ``csv`` and ``tsv`` names the columns; otherwise their names are
            ``1``, ``2`` and so on.
        dataset_config: of ``datasets``: the configuration's name on the hub.
        dataset_split: of ``datasets``, where there are several.
        dataset_revision: of ``datasets`` on the hub: branch, tag or commit.
        megatron_tokenizer: of ``megatron``: the ``tokenizer.json`` that made the ids, which turns
            them into text again.
    """

    form: Form = "text"
    text_field: Fields = "text"
    language_field: str | None = None
    licence_field: str | None = None
    language: str | None = None
    licence: str | None = None
    encoding: str = "utf-8"
    invalid_bytes: Literal["reject", "replace"] = "reject"
    max_document_bytes: Annotated[int, pydantic.Field(ge=1024)] = 32 * 2**20
    oversized: Literal["reject", "split"] = "reject"
    delimiter: Annotated[str, pydantic.Field(min_length=1, max_length=1)] | None = None
    quote: Annotated[str, pydantic.Field(min_length=1, max_length=1)] | None = '"'
    header: bool = True
    dataset_config: str | None = None
    dataset_split: str | None = None
    dataset_revision: str | None = None
    megatron_tokenizer: Path | None = None

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> ReadingConfig:
        encoding = canonical_encoding(self.encoding)
        if encoding != "utf-8" and self.form not in TEXT_FORMS:
            raise ValueError(f"encoding: form '{self.form}' has its own; leave it out")
        for name in ("language_field", "licence_field"):
            if getattr(self, name) is not None and self.form not in FIELD_FORMS:
                raise ValueError(
                    f"{name}: form '{self.form}' has no fields; "
                    f"say it of all documents by {name.removesuffix('_field')}"
                )
        if (self.delimiter or not self.header) and self.form not in ("csv", "tsv"):
            raise ValueError(f"delimiter and header are of csv and tsv, not of '{self.form}'")
        if self.delimiter in ("\n", "\r") or self.quote in ("\n", "\r"):
            raise ValueError("delimiter and quote cannot be line ends")
        if self.delimiter is not None and self.delimiter == self.quote:
            raise ValueError("delimiter and quote must differ")
        if self.form != "datasets":
            for name in ("dataset_config", "dataset_split", "dataset_revision"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is of form 'datasets', not of '{self.form}'")
        if (self.megatron_tokenizer is None) == (self.form == "megatron"):
            raise ValueError(
                "form 'megatron' holds token ids, no text: give megatron_tokenizer, the "
                "tokenizer.json they were made with"
                if self.form == "megatron"
                else f"megatron_tokenizer is of form 'megatron', not of '{self.form}'"
            )
        return self

    @property
    def encoding_name(self) -> str:
        """Python's name of the encoding."""
        return canonical_encoding(self.encoding)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """The fields of the text."""
        return (self.text_field,) if isinstance(self.text_field, str) else self.text_field

    @property
    def field_delimiter(self) -> str:
        """Between the fields of a row."""
        return self.delimiter or ("\t" if self.form == "tsv" else ",")

    @property
    def max_record_bytes(self) -> int:
        """Of a record that is parsed: its escapes and its other fields need room too."""
        return 2 * self.max_document_bytes


@config
class SourceConfig(ReadingConfig):
    """Files that belong together: one origin, one form, one licence."""

    inputs: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
