"""What is shown of examples is what the loader gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpora import make_text, prepare_config, run_stages, write_documents

from configs.schema import load
from preprocessing.arrangement import IGNORED
from preprocessing.corruption.masked import MaskedConfig
from preprocessing.inspection.examples import read_examples, render
from preprocessing.inspection.outputs import Output, Selection, named
from preprocessing.inspection.tokens import render as render_tokens
from preprocessing.rows import RowSet
from preprocessing.settings import decode_preparation


def opened(recipe: Path, name: str) -> tuple[Output, RowSet]:
    directory = decode_preparation(load(recipe)).examples_directory(name)
    (output,) = named(str(recipe), name, [])
    return output, RowSet(directory, "train", seed=1)


@pytest.mark.parametrize("name", ["pairs", "blocks"])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_rows_are_those_of_the_loader(prepared: Path, name: str, epoch: int) -> None:
    output, rows = opened(prepared, name)
    shown = list(read_examples(output, Selection(range(2, 7), epoch=epoch)))
    arrays = rows.arrays(MaskedConfig(), np.arange(2, 7), epoch=epoch)
    asked = arrays.targets["masked_lm"]
    places, labels = asked.indices, asked.labels
    assert [row["row"] for row in shown] == [2, 3, 4, 5, 6]
    for number, row in enumerate(shown):
        assert row["ids"] == arrays.ids[number].tolist()
        assert row["segment_ids"] == arrays.segment_ids[number].tolist()
        assert row["sequence_ids"] == arrays.sequence_ids[number].tolist()
        own = (places // rows.shape.length == number) & (labels != IGNORED)
        expected = (places[own] % rows.shape.length).tolist()
        assert [target["place"] for target in row["targets"]] == expected
        assert row["copy"] == epoch % (2 if name == "pairs" else 1)
    pairs = {sequence["pair"] for row in shown for sequence in row["sequences"]}
    assert pairs <= ({"next", "random"} if name == "pairs" else {None})


def test_dynamic_rows_are_corrupted_anew_each_epoch(prepared: Path) -> None:
    output, _ = opened(prepared, "blocks")
    first, second = (
        [row["targets"] for row in read_examples(output, Selection(range(5), epoch=epoch))]
        for epoch in (0, 1)
    )
    assert first != second


def test_truth_and_fate_of_targets(prepared: Path) -> None:
    """With the truth put back, a row is the plain tokens; fates come in BERT's proportions."""
    output, rows = opened(prepared, "blocks")
    counts = dict.fromkeys(("masked", "random", "kept"), 0)
    for row in read_examples(output, Selection(range(1000))):
        restored = list(row["pieces"])
        for target in row["targets"]:
            counts[target["fate"]] += 1
            assert restored[target["place"]] == target["shown"]
            assert (target["shown"] == "[MASK]") == (target["fate"] == "masked")
            assert (target["shown"] == target["truth"]) == (target["fate"] == "kept")
            restored[target["place"]] = target["truth"]
        plain = rows.read(0, np.array([row["row"]])).sequences.tokens
        (same,) = read_examples(output, Selection(range(row["row"], row["row"] + 1), epoch=9))
        for target in same["targets"]:
            same["pieces"][target["place"]] = target["truth"]
        assert same["pieces"] == restored
        assert len(plain) == sum(one > 0 for one in row["sequence_ids"])
    total = sum(counts.values())
    assert total > 500
    assert abs(counts["masked"] / total - 0.8) < 0.06
    assert abs(counts["random"] / total - 0.1) < 0.05


ROW: dict[str, Any] = {
    "split": "train",
    "row": 7,
    "epoch": 2,
    "ids": [2, 10, 11, 3, 12, 3, 2, 13, 3, 0, 0],
    "pieces": ["[CLS]", "the", "[MASK]", "[SEP]", "go", "[SEP]", "[CLS]", "a\x1b", "[SEP]",
               "[PAD]", "[PAD]"],
    "sequence_ids": [1, 1, 1, 1, 1, 1, 2, 2, 2, 0, 0],
    "segment_ids": [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0],
    "positions": [0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 0],
    "channels": {},
    "sequences": [{"id": 70, "length": 6, "pair": "next"}, {"id": 93, "length": 3, "pair": None}],
    "targets": [
        {"place": 2, "truth": "man", "shown": "[MASK]", "fate": "masked"},
        {"place": 4, "truth": "go", "shown": "go", "fate": "kept"},
        {"place": 7, "truth": ".", "shown": "a\x1b", "fate": "random"},
    ],
}  # fmt: skip


def test_a_row_on_the_terminal() -> None:
    text = render(ROW)
    assert text.plain.splitlines() == [
        "train row 7, epoch 2: 2 sequences, 9 of 11 tokens, 1 masked, 1 random, 1 kept",
        "  ── 1: sequence 70, pair: next",
        "  A  [CLS] the {man → [MASK]} [SEP]",
        "  B  {go = go} [SEP]",
        "  ── 2: sequence 93",
        "  A  [CLS] {. → a␛} [SEP]",
        "  ── 2 of padding",
    ]
    numbered = ROW | {
        "positions": [0, 1, 3, 4, 5, 8, 0, 1, 2, 0, 0],
        "channels": {"ranks": [3, 1, 0, 2, 4, 5, 2, 1, 0, 0, 0]},
    }
    lines = render(numbered).plain.splitlines()
    assert lines[4:6] == ["    positions 0 1 3 4 5 8", "    ranks 3 1 0 2 4 5"]
    assert lines[8] == "    ranks 2 1 0", "positions that count from 0 are not said"
    colours = {str(span.style): text.plain[span.start : span.end] for span in text.spans}
    assert colours["bold red"] == "{man → [MASK]}"
    assert colours["bold green"] == "{go = go}"
    assert colours["bold yellow"] == "{. → a␛}"


def test_what_a_decoder_is_to_say_stands_there_as_tokens(tmp_path: Path) -> None:
    write_documents(tmp_path / "raw" / "a.txt", make_text(20))
    corruption = {"kind": "prefix_denoising"}
    own = {"length": 32, "decoder_length": 32, "frame": "none", "corruption": corruption}
    preparation = prepare_config(tmp_path, examples={"own": own | {"layout": {"kind": "blocks"}}})
    run_stages(preparation)
    (output,) = named(str(tmp_path / "recipe.yaml"), "own", [])
    (row,) = read_examples(output, Selection(range(1)))
    said = [target["label"] for target in row["predictions"]["denoising"]]
    assert said[:-1] == row["decoder"]["pieces"][1 : len(said)]
    assert said[-1] == "[SEP]"


def test_a_shard_of_examples_shows_its_own_rows(prepared: Path) -> None:
    output, rows = opened(prepared, "pairs")
    assert output.manifest is not None
    shard = output.manifest.of("train/copy-001")[1]
    before = output.manifest.of("train/copy-001")[0].rows
    (one,) = named(str(output.directory / shard.name), None, [])
    (row,) = read_examples(one, Selection(range(4, 5)))
    assert (row["row"], row["epoch"]) == (before + 4, 1)
    expected = rows.arrays(MaskedConfig(), np.array([before + 4]), epoch=1)
    assert row["ids"] == expected.ids[0].tolist()
    assert list(read_examples(one, Selection(range(shard.rows, shard.rows + 5)))) == []
    with pytest.raises(ValueError, match="epochs 1, 3"):
        list(read_examples(one, Selection(range(1), epoch=2)))


def test_spans_of_phrases_and_entities_stand_in_brackets() -> None:
    plain = {
        "row": 0, "shard": "train/part-00000.arrow", "id": "00", "ids": [1, 2, 3, 4, 5],
        "pieces": ["in", "new", "york", "##er", "."], "word_starts": [1, 1, 1, 0, 1],
        "sentence_lengths": [4, 1], "layers": {"phrases": [[1, 2]], "entities": [[2, 2]]},
    }  # fmt: skip
    lines = render_tokens(plain).plain.splitlines()
    assert lines[1].endswith("5 tokens, 4 words, 2 sentences, 1 phrases, 1 entities")
    assert lines[2] == "   1  in ⟨phrases: new ⟨entities: york⟩·##er⟩"
    assert lines[3] == "   2  ."


def test_layers_are_found_by_the_form_of_their_column(prepared: Path, tmp_path: Path) -> None:
    span = pa.struct([pa.field("start", pa.int32()), pa.field("length", pa.int32())])
    table = pa.table(
        {
            "id": pa.array([b"\1" * 16], pa.binary(16)),
            "ids": pa.array([[5, 6]], pa.large_list(pa.uint16())),
            "word_starts": pa.array([[True, True]], pa.large_list(pa.bool_())),
            "sentence_lengths": pa.array([[2]], pa.large_list(pa.int32())),
            "phrases": pa.array([[{"start": 0, "length": 2}]], pa.large_list(span)),
        }
    )
    path = tmp_path / "tokens.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    from preprocessing.inspection.tokens import read_tokens

    (row,) = read_tokens(named(str(path), None, [])[0], Selection(range(3)))
    assert row["layers"] == {"phrases": [[0, 2]]}
    assert row["pieces"] == ["5", "6"]
