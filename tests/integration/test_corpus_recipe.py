"""The corpus recipe as it is shipped, on a small corpus: every hop, then nothing left to do."""

import json
import random
from pathlib import Path

import pytest
import zstandard

import configs
from configs.schema import load
from preprocessing.console import main
from preprocessing.settings import decode_preparation
from preprocessing.storage import Manifest

RECIPE = Path(configs.__file__).parent / "corpus" / "multilingual.yaml"
GERMAN = (
    "Am Morgen ging der Müller zum Fluss und sah, dass das Wasser in der Nacht gestiegen war. "
    "Er rief seine Söhne, und sie trugen die Säcke mit dem Mehl auf den Boden der Mühle. "
)
ENGLISH = (
    "In the morning the miller went down to the river and saw that the water had risen. "
    "He called his sons, and they carried the sacks of flour up to the loft of the mill. "
)
TOPICS = ("rain", "bread", "horses", "the market", "a letter", "the fair", "harvest", "winter")


def documents(text: str, count: int) -> list[str]:
    """Texts that are long enough for the filters and share little with each other."""
    words = [*text.split(), *TOPICS] * 2
    return [" ".join(random.Random(index).sample(words, len(words))) for index in range(count)]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw" / "web").mkdir(parents=True)
    lines = [{"text": text, "lang": "de"} for text in documents(GERMAN, 40)]
    lines += [{"text": "Zu kurz.", "lang": "de"}, {"text": lines[0]["text"], "lang": "de"}]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    (tmp_path / "raw" / "web" / "a.jsonl.zst").write_bytes(zstandard.compress(data))
    (tmp_path / "raw" / "books").mkdir()
    for index, text in enumerate(documents(ENGLISH, 40)):
        (tmp_path / "raw" / "books" / f"{index}.txt").write_text(text)
    return tmp_path


def test_shipped_corpus_recipe_runs(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "run",
        str(RECIPE),
        "corpus.workers=1",
        "corpus.validation.heldout.share=0.2",
        "tokenizer.vocab_size=300",
        "--json",
    ]
    assert main(words) == 0
    outputs = json.loads(capsys.readouterr().out)["outputs"]
    assert [Path(one["directory"]).name for one in outputs][:2] == ["documents", "filtered"]

    preparation = decode_preparation(load(RECIPE, words[2:5]))
    read = Manifest.read(preparation.documents_directory)
    assert read.tables["documents by language"] == {"de": 42, "en": 40}
    assert read.tables["documents by licence"]["public domain"] == 40
    assert Manifest.read(preparation.filtered_directory).rejects == {"gopher_word_count": 1}
    kept = Manifest.read(preparation.clean_directory)
    assert kept.rejects == {"exact_duplicate": 1}
    assert sum(kept.totals(split)["rows"] for split in ("train", "heldout")) == 80

    assert main(words) == 0
    again = json.loads(capsys.readouterr().out)["outputs"]
    assert {one["status"] for one in again} == {"up to date"}
