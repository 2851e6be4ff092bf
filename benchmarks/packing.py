"""How full rows are on text of short documents: padding, length buckets, packing, the optimum.

    LEXMILL_DATA=... python benchmarks/packing.py [--quick] [--json]

Single sentences of Wikipedia (wikisplit) and Chinese reviews (ChnSentiCorp), as ``blocks`` of at
most 128 and 512 tokens, special ones included. Of the optimum a bound is known (Martello and Toth's
L2 over the whole text): no packing is fuller. Buckets are rows of an eighth, a quarter, a half and
the whole of the length.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import tell
from numpy.typing import NDArray

LENGTHS = (128, 512)
TEXTS = {
    "wikisplit": ("wikisplit/*.tsv", 0, False),
    "chnsenticorp": ("zh_chnsenticorp/*.tsv", 1, True),
}
"""Files, the column of the text, and whether a first line names the columns."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the text")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    options = parser.parse_args()
    root = os.environ.get("LEXMILL_DATA")
    if not root:
        parser.error("set LEXMILL_DATA to the folder of the corpora")
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    print(f"{'fill in %':<22}{'padding':>9}{'buckets':>9}{'packed':>9}{'optimum <=':>12}")
    for name, (pattern, column, header) in TEXTS.items():
        texts = list(read(Path(root), pattern, column, header=header))
        texts = texts[:: 5 if options.quick else 1]
        with tempfile.TemporaryDirectory() as folder:
            for length, lengths in sequences(Path(folder), texts):
                measure(f"{name}_{length}", lengths, length, ratios, figures)
    lengths = np.minimum(512, np.random.default_rng(0).geometric(1 / 60, 10**6))
    begun = time.perf_counter()
    pack(lengths, 512)
    figures["million_sequences_packed_per_second"] = 1 / (time.perf_counter() - begun)
    tell(ratios, figures, as_json=options.json)


def read(root: Path, pattern: str, column: int, *, header: bool) -> Iterator[str]:
    """The texts of some files of columns."""
    for path in sorted(root.glob(pattern)):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file):
                if number or not header:
                    yield line.rstrip("\n").split("\t")[column]


def sequences(folder: Path, texts: list[str]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Row length, and lengths of the sequences that the examples stage makes for it."""
    from configs.schema import load
    from preprocessing.building import RowMaker
    from preprocessing.commands import run_preparation
    from preprocessing.settings import decode_preparation
    from preprocessing.tokens import TokenStore
    from preprocessing.vocabulary import Vocabulary

    with (folder / "text.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    examples = {
        str(length): {
            "length": length,
            "layout": {"kind": "blocks"},
            "corruption": {"kind": "masked"},
        }
        for length in LENGTHS
    }
    recipe = {
        "seed": 1,
        "corpus": {
            "directory": str(folder / "data"),
            "inputs": [str(folder / "text.jsonl")],
            "form": "jsonl",
        },
        "tokenizer": {"kind": "wordpiece", "vocab_size": 8192},
        "examples": examples,
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    preparation = decode_preparation(load(path))
    for _ in run_preparation(preparation):
        pass
    store = TokenStore(preparation.tokens_directory, "train")
    vocabulary = Vocabulary.load(preparation.tokenizer_directory)
    for length in LENGTHS:
        maker = RowMaker(preparation.examples[str(length)], vocabulary, store, preparation.seed)
        yield length, maker.cut(range(store.num_documents), 0).lengths


def pack(lengths: NDArray[np.int64], length: int) -> int:
    """Rows that ours needs."""
    from preprocessing.packing import pack_rows

    return len(pack_rows(lengths, length))


def measure(
    name: str,
    lengths: NDArray[np.int64],
    length: int,
    ratios: dict[str, float],
    figures: dict[str, float],
) -> None:
    """How full rows are, four ways; the ratio is that of tokens a row, packed over padded."""
    from preprocessing.packing import fewest_rows, fill

    edges = np.array([length // 8, length // 4, length // 2, length])
    slots = edges[np.searchsorted(edges, lengths)].sum()
    fills = {
        "padding": fill(lengths, length, len(lengths)),
        "buckets": float(lengths.sum() / slots),
        "packed": fill(lengths, length, pack(lengths, length)),
        "optimum": fill(lengths, length, fewest_rows(lengths, length)),
    }
    shown = [
        f"{100 * value:>{width}.2f}"
        for value, width in zip(fills.values(), (9, 9, 9, 12), strict=True)
    ]
    print(f"{name:<22}{''.join(shown)}")
    figures |= {f"fill_{way}_{name}": 100 * value for way, value in fills.items()}
    ratios[f"packed_vs_padded_{name}"] = fills["packed"] / fills["padding"]
    ratios[f"packed_vs_optimum_{name}"] = fills["packed"] / fills["optimum"]


if __name__ == "__main__":
    main()
