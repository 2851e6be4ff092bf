import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from tokenizers import Tokenizer

from preprocessing.settings import Preparation
from preprocessing.storage import InputError, Manifest
from preprocessing.vocabulary import SPECIAL_TOKENS, Vocabulary

TRAIN = """
import json, sys
from pathlib import Path
from preprocessing.tokenizers.settings import WordPieceConfig
from preprocessing.tokenizers.wordpiece import train_wordpiece

texts = json.loads(Path(sys.argv[1]).read_text())
config = WordPieceConfig(kind="wordpiece", vocab_size=int(sys.argv[2]))
sys.stdout.write(train_wordpiece(config, lambda: [texts[:50], texts[50:]]).to_str())
"""


@pytest.mark.parametrize("size", [120, 600])
def test_training_gives_the_same_bytes_every_time(tmp_path: Path, size: int) -> None:
    """The library alone does not: it goes through a hash table, and ties are many here."""
    texts = make_text(60) + [
        " ".join(chr(0x4E00 + (7 * k + i) % 300) + "ab"[i % 2] for i in range(40))
        for k in range(40)
    ]
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    results = set()
    for threads in ("1", "2", "4"):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(tmp_path / "texts.json"), str(size)],
            capture_output=True,
            check=True,
            env={**os.environ, "RAYON_NUM_THREADS": threads},
        )
        results.add(done.stdout)
    assert len(results) == 1
    tokenizer = Tokenizer.from_str(results.pop().decode())
    pieces = tokenizer.get_vocab()
    assert len(pieces) <= size
    assert sorted(pieces.values()) == list(range(len(pieces)))
    single = [p for p in pieces if len(p.removeprefix("##")) == 1]
    assert len(single) <= size // 2
    assert [tokenizer.id_to_token(i) for i in range(5)] == list(SPECIAL_TOKENS)
    special = json.loads(tokenizer.to_str())["added_tokens"]
    assert [token["content"] for token in special] == list(SPECIAL_TOKENS)


def test_commonest_characters_are_kept_and_continue_where_they_occur_inside(
    tmp_path: Path,
) -> None:
    write_documents(tmp_path / "raw" / "a.txt", ["abc ab, a! 東京", "abc ab, a! 東x"])
    preparation = prepare_config(
        tmp_path, corpus={"validation": {}}, tokenizer={"kind": "wordpiece", "vocab_size": 100}
    )
    run_stages(preparation, ["ingest", "deduplicate", "tokenizer"])
    pieces = set(Vocabulary.load(preparation.tokenizer_directory).tokenizer.get_vocab())
    assert {"a", "##b", "##c", "b", "c", ",", "!", "東", "京", "x", "ab", "abc"} <= pieces
    assert not {"##a", "##東", "##京", "##,", "##x", " ", "東京"} & pieces


def test_training_takes_a_sample_of_large_corpora(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(300))
    counts = {}
    for limit in (2**30, 3000):
        preparation = prepare_config(
            tmp_path,
            tokenizer={
                "kind": "wordpiece",
                "vocab_size": 1000,
                "max_training_bytes": limit,
                "name": f"of-{limit}",
            },
        )
        run_stages(preparation, ["ingest", "deduplicate", "tokenizer"])
        counts[limit] = Vocabulary.load(preparation.tokenizer_directory).size
        facts = Manifest.read(preparation.tokenizer_directory).facts
        assert facts["vocab_size"] == counts[limit]
        taken = facts["trained_on"]["sampled_bytes_by_language"]["und"]
        given = facts["trained_on"]["bytes_by_language"]["und"]
        assert taken == given if limit == 2**30 else 0.7 * limit < taken < 1.3 * limit
    assert counts[3000] < counts[2**30]


ROAD = ("ingest", "deduplicate", "tokenizer")


def adopting(folder: Path, path: Path, **options: object) -> Preparation:
    write_documents(folder / "raw" / "a.txt", make_text(40))
    return prepare_config(
        folder,
        tokenizer={"kind": "existing", "path": str(path), "name": "adopted", **options},
    )


def write_vocabulary(path: Path, words: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{word}\n" for word in words))
    return path


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocab_txt_is_adopted_with_its_ids(tmp_path: Path, lowercase: bool) -> None:
    words = ["[PAD]", "unused", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "The", "cat", "##s"]
    path = write_vocabulary(tmp_path / "given" / "vocab.txt", words)
    for given in (path, path.parent):
        preparation = adopting(tmp_path / given.name, given, lowercase=lowercase)
        run_stages(preparation, ROAD)
        vocabulary = Vocabulary.load(preparation.tokenizer_directory)
        (ids,) = vocabulary.encode(["The cats [MASK]"])
        first = words.index("the" if lowercase else "The")
        assert ids[:3] == [first, 8, 9]
        assert set(ids[3:]) == {2}
        assert (vocabulary.pad_id, vocabulary.mask_id, vocabulary.size) == (0, 5, 10)
        listing = (preparation.tokenizer_directory / "vocab.txt").read_text().split("\n")
        assert listing == [*words, ""]
        assert vocabulary.continues_word.tolist() == [False] * 9 + [True]


def test_tokenizer_json_is_adopted(tmp_path: Path) -> None:
    write_documents(tmp_path / "own" / "raw" / "a.txt", make_text(40))
    prepared = prepare_config(tmp_path / "own")
    run_stages(prepared, ["ingest", "deduplicate", "tokenizer"])
    preparation = adopting(tmp_path, prepared.tokenizer_directory)
    run_stages(preparation, ROAD)
    name = "tokenizer.json"
    assert (preparation.tokenizer_directory / name).read_bytes() == (
        prepared.tokenizer_directory / name
    ).read_bytes()


def test_vocabulary_that_is_no_good_is_refused(tmp_path: Path) -> None:
    for number, (words, expected) in enumerate(
        [([*SPECIAL_TOKENS, "a", "b", "a"], "a piece stands there twice"), ([], "holds no pieces")]
    ):
        path = write_vocabulary(tmp_path / str(number) / "vocab.txt", words)
        with pytest.raises(InputError, match=expected):
            run_stages(adopting(tmp_path / str(number), path), ROAD)


def test_missing_role_is_an_error_where_it_is_needed(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a"]
    path = write_vocabulary(tmp_path / "given" / "vocab.txt", words)
    preparation = adopting(tmp_path, path)
    run_stages(preparation, ROAD)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    assert vocabulary.separator_id == 3
    with pytest.raises(InputError, match=r"no \[MASK\]; if another.*tokenizer\.specials\.mask"):
        _ = vocabulary.mask_id


def test_missing_or_damaged_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tokenizer\.json, vocab\.txt or sentencepiece"):
        run_stages(adopting(tmp_path, tmp_path / "nowhere"), ROAD)
    bad = tmp_path / "bad" / "tokenizer.json"
    write_vocabulary(bad, ["{"])
    with pytest.raises(InputError, match="not a vocabulary that can be read"):
        run_stages(adopting(tmp_path, bad), ["tokenizer"])
    write_vocabulary(tmp_path / "bad" / "spiece.model", ["{"])
    with pytest.raises(InputError, match=r"holds tokenizer\.json, spiece\.model; name the one"):
        run_stages(adopting(tmp_path, tmp_path / "bad"), ["tokenizer"])
    with pytest.raises(InputError, match="not a sentencepiece model"):
        run_stages(adopting(tmp_path, tmp_path / "bad" / "spiece.model"), ["tokenizer"])
