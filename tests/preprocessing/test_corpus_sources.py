"""Examples of some sources of a corpus: theirs alone, and the same when other sources come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.schema import ConfigError, load
from preprocessing.commands import run_preparation
from preprocessing.rows import RowSet
from preprocessing.settings import Preparation, decode_preparation
from preprocessing.stage import Outcome
from preprocessing.storage import InputError, Manifest
from preprocessing.tokens import TokenStore

RECIPE = """
seed: 1
corpus:
  directory: {root}/data
  sources:
{sources}
  validation: {{heldout: {{share: 0.1}}, given: {{inputs: [{root}/given.txt]}}}}
  shard_bytes: 4096
tokenizer: {{kind: wordpiece, vocab_size: 150, sources: [birds]}}
examples:
  birds:
    length: 32
    layout: {{kind: pairs}}
    corruption: {{kind: masked}}
    mode: static
    sources: [birds]
"""
BOTH = "  fish: {length: 32, layout: {kind: blocks}, corruption: {kind: masked}, sources: [fish]}\n"
WORDS = {
    "birds": ("wren", "robin", "kestrel", "heron", "sings", "nests", "hedge", "sky"),
    "fish": ("perch", "trout", "herring", "carp", "swims", "spawns", "brook", "sea"),
    "given": ("wren", "perch", "stone", "tree", "falls", "stands", "wind", "rain"),
}


def write(root: Path, *names: str) -> Preparation:
    """A corpus of these sources, and its recipe."""
    for name, words in WORDS.items():
        rng = np.random.default_rng(len(name))
        documents = [
            " ".join(" ".join(rng.choice(words, 8)).capitalize() + "." for _ in range(6))
            for _ in range(10 if name == "given" else 60)
        ]
        (root / f"{name}.txt").write_text("\n\n".join(documents))
    sources = "\n".join(f"    {name}: {{inputs: [{root}/{name}.txt]}}" for name in names)
    text = RECIPE.format(root=root, sources=sources) + (BOTH if "fish" in names else "")
    (root / "recipe.yaml").write_text(text)
    return decode_preparation(load(root / "recipe.yaml"))


def run(preparation: Preparation, *, overwrite: bool = False) -> Iterator[Outcome]:
    return run_preparation(preparation, overwrite=overwrite)


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def words_of(preparation: Preparation, split: str, name: str) -> set[str]:
    """The words behind the tokens that a set of examples is made of."""
    from preprocessing.vocabulary import Vocabulary

    sources = preparation.examples[name].sources
    store = TokenStore(preparation.tokens_directory, split, sources)
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    ids = np.concatenate([store.ids(number) for number in range(store.num_documents)])
    return set(" ".join(vocabulary.tokens(ids.tolist())).replace(" ##", "").split()) - {"."}


def test_a_source_may_be_added_and_nothing_else_changes(tmp_path: Path) -> None:
    before = write(tmp_path, "birds")
    assert {outcome.status for outcome in run(before)} == {"made"}
    birds = files(before.examples_directory("birds"))
    vocabulary = files(before.tokenizer_directory)

    after = write(tmp_path, "birds", "fish")
    with pytest.raises(InputError, match="made differently"):
        list(run(after))
    statuses = {outcome.directory: outcome.status for outcome in run(after, overwrite=True)}

    assert statuses[after.documents_directory] == statuses[after.tokens_directory] == "made"
    assert statuses[after.examples_directory("birds")] == "up to date"
    assert statuses[after.tokenizer_directory] == "up to date"
    assert files(before.examples_directory("birds")) == birds
    assert files(before.tokenizer_directory) == vocabulary
    fish = RowSet(after.examples_directory("fish"), "train", seed=1)
    assert sum(fish.num_rows) > 0
    for split in ("train", "heldout"):
        assert words_of(after, split, "birds") <= set(WORDS["birds"])
    assert not words_of(after, "train", "fish") & set(WORDS["birds"])


def test_every_stage_says_which_source_a_shard_is_of(tmp_path: Path) -> None:
    preparation = write(tmp_path, "birds", "fish")
    list(run(preparation))
    for directory in (
        preparation.documents_directory,
        preparation.clean_directory,
        preparation.tokens_directory,
    ):
        of = {(shard.split, shard.source) for shard in Manifest.read(directory).shards}
        known = {("train", "birds"), ("train", "fish"), ("given", None)}
        assert known <= of, directory
        assert of - known <= {("heldout", "birds"), ("heldout", "fish")}, directory
    # A set with files of its own is of no source, and of every examples set.
    for name in ("birds", "fish"):
        given = RowSet(preparation.examples_directory(name), "given", seed=1)
        assert given.num_rows[0] > 0


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    write(tmp_path, "birds")
    changes = ("examples.birds.sources=[bats, birds]", "tokenizer.sources=[bats]")
    with pytest.raises(ConfigError) as caught:
        decode_preparation(load(recipe, changes))
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "examples.birds.sources: 'bats' is no name of a source; corpus.sources has birds",
        "tokenizer.sources: 'bats' is no name of a source; corpus.sources has birds",
    ]


def test_shards_of_older_versions_do_not_know_their_source(tmp_path: Path) -> None:
    preparation = write(tmp_path, "birds")
    list(run(preparation))
    path = preparation.tokens_directory / "manifest.json"
    plain = json.loads(path.read_text())
    for shard in plain["shards"]:
        del shard["source"]
    path.write_text(json.dumps(plain))

    assert TokenStore(preparation.tokens_directory, "train").num_documents > 0
    with pytest.raises(InputError, match=r"which source they are of.*--overwrite"):
        TokenStore(preparation.tokens_directory, "train", ("birds",))
