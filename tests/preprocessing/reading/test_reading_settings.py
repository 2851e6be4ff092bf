from pathlib import Path
from typing import Any

import pytest

from preprocessing.reading.settings import ReadingConfig


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"encoding": "utf8-nonsense"}, "no encoding of text that Python knows"),
        ({"encoding": "base64"}, "no encoding of text"),
        ({"encoding": "idna"}, "no encoding of text"),
        ({"form": "parquet", "encoding": "cp1252"}, "form 'parquet' has its own"),
        ({"language_field": "lang"}, "form 'text' has no fields; say it .* by language"),
        ({"form": "lines", "licence_field": "l"}, "form 'lines' has no fields"),
        ({"form": "jsonl", "delimiter": ";"}, "delimiter and header are of csv and tsv"),
        ({"form": "csv", "delimiter": '"'}, "must differ"),
        ({"form": "csv", "quote": "\n"}, "cannot be line ends"),
        ({"dataset_split": "train"}, "dataset_split is of form 'datasets'"),
        ({"megatron_tokenizer": "t.json"}, "of form 'megatron', not of 'text'"),
        ({"form": "megatron"}, "give megatron_tokenizer"),
        ({"form": "docx"}, "Input should be 'text', 'lines'"),
        ({"max_document_bytes": 10}, "greater than or equal to 1024"),
        ({"form": "jsonl", "text_field": ()}, "at least 1 item"),
    ],
)
def test_what_does_not_fit_together_is_refused(keys: dict[str, Any], message: str) -> None:
    if "megatron_tokenizer" in keys:
        keys = keys | {"megatron_tokenizer": Path(keys["megatron_tokenizer"])}
    with pytest.raises(ValueError, match=message):
        ReadingConfig(**keys)


@pytest.mark.parametrize(
    ("name", "known"),
    [("UTF8", "utf-8"), ("utf-8-sig", "utf-8"), ("latin1", "iso8859-1"), ("GB18030", "gb18030")],
)
def test_encodings_are_known_by_any_name(name: str, known: str) -> None:
    assert ReadingConfig(encoding=name).encoding_name == known
