import os
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpora import make_text, prepare_config, run_stages, shard_rows, write_documents

from preprocessing.settings import Preparation
from preprocessing.stages.tokenize import Tokenize
from preprocessing.storage import InputError, Manifest
from preprocessing.tokens import TokenStore
from preprocessing.vocabulary import Vocabulary

DOCUMENTS = [
    "She lives in New York, as well as in Springfield. In fact she does.",
    "我们来到北京。In New York 他们 stay in fact.",
    "Nothing here. Newer Yorkers.",
    "\u200b\u200b",
]
WORDPIECE = {"kind": "wordpiece", "vocab_size": 300, "lowercase": True}


def prepare(
    folder: Path,
    documents: list[str],
    tokenizer: dict[str, Any] = WORDPIECE,
    **annotations: Any,
) -> Preparation:
    write_documents(folder / "raw" / "a.txt", documents)
    corpus = {"annotations": annotations, "allowed_reject_share": 0.2}
    preparation = prepare_config(folder, tokenizer=tokenizer, corpus=corpus)
    run_stages(preparation, ("ingest", "deduplicate", "tokenizer", "tokenize"))
    return preparation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("annotated")
    (folder / "phrases.txt").write_text("in fact\nas well\nas well as\n", encoding="utf-8")
    (folder / "names.tsv").write_text("New York\tLOC\n北京\tLOC\n", encoding="utf-8")
    (folder / "words.txt").write_text("我们 9\n来到 8\n他们 7\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Preparation:
    words = {"kind": "jieba", "hmm": False, "dictionary": str(folder / "words.txt")}
    return prepare(
        folder,
        DOCUMENTS + make_text(40),
        phrases=[{"path": str(folder / "phrases.txt"), "case_sensitive": False}],
        entities=[{"path": str(folder / "names.tsv")}],
        segmenter=words,
    )


def annotated(preparation: Preparation) -> dict[str, dict[str, list[str]]]:
    """By the beginning of each document: its spans, and its words of more than one token."""
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    found = {}
    for split in ("train", "heldout"):
        store = TokenStore(preparation.tokens_directory, split)
        texts = {row["id"]: row["text"] for row in shard_rows(preparation.clean_directory, split)}
        for number, row in enumerate(shard_rows(preparation.tokens_directory, split)):
            pieces = [vocabulary.tokenizer.id_to_token(i) for i in row["ids"]]
            layers = {
                layer: [
                    "".join(f" {piece}" for piece in pieces[start : start + length])
                    .replace(" ##", "")
                    .strip()
                    for start, length in store.spans(layer, number).tolist()
                ]
                for layer in store.layers
            }
            starts = store.word_starts(number)
            assert starts.tolist() == row["word_starts"]
            words = np.split(np.array(pieces), np.flatnonzero(starts)[1:])
            chinese = ["".join(word) for word in words if len(word) > 1 and "一" <= word[0] <= "龥"]
            found[texts[row["id"]][:8]] = layers | {"words": chinese}
    return found


def test_spans_and_words_are_found_in_the_tokens(prepared: Preparation) -> None:
    found = annotated(prepared)
    assert found["She live"] == {
        "phrases": ["as well as", "in fact"],
        "entities": ["new york"],
        "words": [],
    }
    assert found["我们来到北京。I"] == {
        "phrases": ["in fact"],
        "entities": ["北 京", "new york"],
        "words": ["我们", "来到", "他们"],
    }
    assert found["Nothing "] == {"phrases": [], "entities": [], "words": []}


def test_the_manifest_counts_spans_and_names_what_found_them(prepared: Preparation) -> None:
    manifest = Manifest.read(prepared.tokens_directory)
    totals = manifest.totals()
    rows = [
        row for split in manifest.splits for row in shard_rows(prepared.tokens_directory, split)
    ]
    for layer in ("phrases", "entities"):
        assert totals[layer] == sum(len(row[layer]) for row in rows) == 3
        assert totals[f"{layer}_dropped"] == 0
    assert {"phrases[0]", "entities[0]", "segmenter"} <= set(manifest.inputs)
    assert manifest.configuration["annotations"]["segmenter"]["version"] == metadata.version(
        "jieba"
    )
    assert str(prepared.corpus.directory) not in str(manifest.configuration)


def test_sentences_are_those_of_tokens_without_annotations(
    prepared: Preparation, tmp_path: Path
) -> None:
    plain = prepare(tmp_path, DOCUMENTS + make_text(40))
    for split in ("train", "heldout"):
        ours = shard_rows(prepared.tokens_directory, split)
        theirs = shard_rows(plain.tokens_directory, split)
        assert [row["ids"] for row in ours] == [row["ids"] for row in theirs]
        assert [row["sentence_lengths"] for row in ours] == [
            row["sentence_lengths"] for row in theirs
        ]
    store = TokenStore(plain.tokens_directory, "train")
    assert store.layers == ()
    with pytest.raises(InputError, match=r"name a lexicon in corpus\.annotations\.phrases"):
        store.spans("phrases", 0)


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"kind": "byte_level_bpe", "vocab_size": 400},
        {"kind": "unigram", "vocab_size": 300},
        {"kind": "characters", "vocab_size": 300},
    ],
    ids=lambda tokenizer: tokenizer["kind"],
)
def test_spans_are_found_in_the_tokens_of_any_vocabulary(
    tokenizer: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    names = [{"path": str(folder / "names.tsv")}]
    # Often enough that no piece holds a name and more.
    documents = [*DOCUMENTS[:3], *(f"{word} 。北京，{word} New York ." for word in make_text(60))]
    preparation = prepare(tmp_path, documents, tokenizer, entities=names)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    texts = []
    for split in ("train", "heldout"):
        store = TokenStore(preparation.tokens_directory, split)
        for document in range(store.num_documents):
            ids = store.ids(document).tolist()
            for start, length in store.spans("entities", document).tolist():
                texts.append(vocabulary.model.decode(ids[start : start + length]).strip())
    totals = Manifest.read(preparation.tokens_directory).totals()
    assert len(texts) == totals["entities"] > 90
    assert totals["entities"] + totals["entities_dropped"] == 123
    plain = {text.replace(" ", "").replace("▁", "") for text in texts}
    assert plain <= {"NewYork", "北京"}
    assert "NewYork" in plain


def test_a_changed_lexicon_is_noticed(tmp_path: Path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("in fact\n")
    preparation = prepare(tmp_path, DOCUMENTS + make_text(40), phrases=[{"path": str(lexicon)}])
    lexicon.write_text("New York\n")
    stage = Tokenize(preparation)
    task = stage.plan()[0]
    lexicon.write_text("no more\n")
    with pytest.raises(InputError, match="a lexicon has changed while it was used"):
        stage.function(task)
    with pytest.raises(InputError, match=r"the input phrases\[0\] has changed"):
        run_stages(preparation, ("tokenize",))
    lexicon.unlink()
    with pytest.raises(InputError, match="cannot read a lexicon"):
        run_stages(preparation, ("tokenize",))


def test_real_text_is_annotated_with_real_lexicons(tmp_path: Path) -> None:
    if "LEXMILL_DATA" not in os.environ:
        pytest.skip("LEXMILL_DATA is not set")
    data = Path(os.environ["LEXMILL_DATA"])
    english = (data / "en_novels" / "novels_en.txt").read_bytes()[:100_000]
    chinese = max((path.read_bytes() for path in (data / "zh_novels").glob("*.txt")), key=len)
    documents = [
        document.strip()
        for raw in (english, chinese[:100_000])
        for document in raw.decode(errors="ignore").split("\n\n")
        if document.strip()
    ]
    preparation = prepare(
        tmp_path,
        documents,
        phrases=[
            {
                "path": str(data / "lexicon" / "en" / "wordnet_multiword.tsv"),
                "case_sensitive": False,
            },
            {"path": str(data / "lexicon" / "zh" / "THUOCL_chengyu.txt")},
        ],
        entities=[
            {"path": str(data / "lexicon" / "en" / "entities.tsv")},
            {"path": str(data / "lexicon" / "zh" / "THUOCL_diming.txt")},
        ],
        segmenter={"kind": "jieba"},
    )
    totals = Manifest.read(preparation.tokens_directory).totals()
    assert totals["phrases"] > 300
    assert totals["entities"] > 30
    # WordPiece cuts at white space, punctuation and every ideograph, as the matches do.
    assert totals["phrases_dropped"] == totals["entities_dropped"] == 0
    assert sum(len(layers["words"]) for layers in annotated(preparation).values()) > 3_000
