"""Arrow rows to masked batches, and how fast a loader begins, seeks and goes on.

    python benchmarks/loader.py [--quick] [--json]

- batches: ours, with exact target counts by keyed draws, positions and sequence ids, beside
  ``DataCollatorForLanguageModeling`` behind a ``DataLoader`` over ``datasets``; the same rows, one
  process, one thread; whole words too.
- start, seek, memory: ours at 1e5, 1e7 and 1e9 rows, beside mosaicml-streaming where it is
  installed (up to 1e7: it draws the order of an epoch as a whole, which takes memory and time that
  grow with the rows). The shards of these sets are links to a single file; every figure is of a
  process of its own, with the file in the page cache.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from measure import alternate, tell

BATCH = 64
SIZES = {"1e5": 10**5, "1e7": 10**7, "1e9": 10**9}
SHARD_ROWS = 2**18
SEEKS = 50
RECIPE = """
seed: 1
corpus: {{directory: {root}/data, inputs: [{root}/text.jsonl], form: jsonl, workers: 2,
         validation: {{heldout: {{share: 0.05}}}}}}
tokenizer: {{kind: wordpiece, vocab_size: 8192}}
examples:
  rows-128: {{length: 128, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
  rows-512: {{length: 512, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
  words-128: {{length: 128, layout: {{kind: blocks}}, pack: true, corruption: {{kind: whole_word}}}}
  words-512: {{length: 512, layout: {{kind: blocks}}, pack: true, corruption: {{kind: whole_word}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less text, fewer rounds")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--probe", nargs=2, metavar=("WHO", "DIRECTORY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        who, directory = options.probe
        print(json.dumps(PROBES[who](Path(directory))))
        return
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as root:
        preparation = prepare(Path(root), megabytes=2 if options.quick else 10)
        for kind, length in itertools.product(("rows", "words"), (128, 512)):
            name = f"{kind}-{length}"
            speeds = compare(
                preparation,
                name,
                rounds=3 if options.quick else 7,
                most_batches=12 if options.quick else 200,
            )
            what = f"{'' if kind == 'rows' else 'whole_word_'}{length}"
            theirs = max(speed for peer, speed in speeds.items() if peer != "ours")
            ratios[f"{'batches' if kind == 'rows' else 'whole_words'}_vs_hf_collator_{length}"] = (
                speeds["ours"] / theirs
            )
            figures[f"tokens_per_second_{what}"] = speeds["ours"]
            figures[f"tokens_per_second_{what}_hf_collator"] = theirs
        sizes = ("1e5", "1e9") if options.quick else tuple(SIZES)
        begin(Path(root), preparation, sizes, 1 if options.quick else 5, ratios, figures)
    tell(ratios, figures, as_json=options.json)


def prepare(root: Path, megabytes: float) -> Any:
    from configs.schema import load
    from preprocessing.commands import run_preparation
    from preprocessing.documentation import modules, write_corpus
    from preprocessing.settings import decode_preparation

    write_corpus(root / "text.jsonl", modules(), megabytes)
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    preparation = decode_preparation(load(recipe))
    for _ in run_preparation(preparation):
        pass
    return preparation


# -- batches -------------------------------------------------------------------------------------


def compare(preparation: Any, name: str, *, rounds: int, most_batches: int) -> dict[str, float]:
    import torch

    from pipeline.data import RowSource, to_batch

    torch.set_num_threads(1)
    directory = preparation.examples_directory(name)
    corruption = preparation.examples[name].corruption
    rows = RowSource(directory, "train", corruption, preparation.seed, 0).open()
    num_batches = min(rows.num_rows // BATCH, most_batches)
    positions = itertools.count()
    num_tokens = num_batches * BATCH * preparation.examples[name].length

    def ours() -> int:
        first = next(positions) * num_batches * BATCH
        for number in range(num_batches):
            start = first + number * BATCH
            to_batch(rows.arrays(range(start, start + BATCH)))
        return num_tokens

    work = {"ours": ours}
    for form in (None, "torch"):
        loader = their_loader(preparation, name, num_batches * BATCH, form)

        def theirs(loader: Any = loader) -> int:
            for _ in loader:
                pass
            return num_tokens

        work[f"theirs as {form or 'lists'}"] = theirs
    medians, _ = alternate(work, rounds=rounds)
    return medians


def their_loader(preparation: Any, name: str, num_rows: int, form: str | None) -> Any:
    """The same rows, padded, in an Arrow dataset; words as offsets, where words are masked."""
    import torch
    from datasets import Dataset
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    from preprocessing.rows import RowSet

    directory = preparation.examples_directory(name)
    rows = RowSet(directory, "train", seed=preparation.seed)
    whole_words = "words" in name
    length, pad = rows.shape.length, rows.special.pad
    ids = np.full((num_rows, length), pad, dtype=np.int32)
    offsets = np.zeros((num_rows, length, 2), dtype=np.int32)
    for row in range(num_rows):
        sequences = rows.read(0, np.array([row])).sequences
        size = len(sequences.tokens)
        ids[row, :size] = sequences.tokens
        if whole_words:  # a gap before every word, none within
            starts = np.cumsum(1 + sequences.marks.astype(bool))
            offsets[row, :size] = np.stack([starts, starts + 1], axis=1)
    columns = {"input_ids": ids} | ({"offset_mapping": offsets} if whole_words else {})
    dataset = Dataset.from_dict({key: list(values) for key, values in columns.items()})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(preparation.tokenizer_directory / "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )
    return torch.utils.data.DataLoader(
        dataset.with_format(form),
        batch_size=BATCH,
        shuffle=True,
        collate_fn=DataCollatorForLanguageModeling(
            tokenizer,
            mlm_probability=0.15,
            whole_word_mask=whole_words,
            random_replace_prob=0.0 if whole_words else 0.1,
        ),
    )


# -- start, seek, memory ---------------------------------------------------------------------------


def begin(
    root: Path,
    preparation: Any,
    sizes: Sequence[str],
    rounds: int,
    ratios: dict[str, float],
    figures: dict[str, float],
) -> None:
    peer = importlib.util.find_spec("streaming") is not None
    if not peer:
        print("mosaicml-streaming is not installed: start and seek are ours alone", file=sys.stderr)
    for name in sizes:
        size = SIZES[name]
        link_rows(root / f"ours-{name}", preparation, size)
        own = probe("ours", root / f"ours-{name}", rounds)
        figures |= {f"{what}_{name}": value for what, value in own.items()}
        if peer and size <= 10**7:
            link_stream(root / f"theirs-{name}", size)
            other = probe("theirs", root / f"theirs-{name}", rounds)
            figures |= {f"{what}_{name}_mosaicml": value for what, value in other.items()}
            ratios[f"start_vs_mosaicml_{name}"] = other["start_ms"] / own["start_ms"]
            ratios[f"seek_vs_mosaicml_{name}"] = other["seek_ms"] / own["seek_ms"]


def probe(who: str, directory: Path, rounds: int) -> dict[str, float]:
    """Medians of some processes."""
    runs = []
    for _ in range(rounds):
        command = [sys.executable, __file__, "--probe", who, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {what: statistics.median(run[what] for run in runs) for what in runs[0]}


def probe_ours(directory: Path) -> dict[str, float]:
    """Opening to the first batch, batches at far positions, and what they took of memory."""
    from pipeline.data import RowSource, to_batch
    from preprocessing.corruption import MaskedConfig

    before = anonymous_bytes()
    started = time.perf_counter()
    rows = RowSource(directory, "train", MaskedConfig(), 1, 0).open()
    to_batch(rows.arrays(range(BATCH)))
    start = time.perf_counter() - started
    seeks = []
    for number in range(SEEKS):
        place = rows.num_rows * number // SEEKS
        started = time.perf_counter()
        to_batch(rows.arrays(range(place, place + BATCH)))
        seeks.append(time.perf_counter() - started)
    return measured(start, statistics.median(seeks), before)


def probe_theirs(directory: Path) -> dict[str, float]:
    """The same of mosaicml-streaming; a seek there is a new loader with the old one's state."""
    StreamingDataset, _ = import_streaming()

    def opened(state: dict[str, Any] | None) -> Any:
        dataset = StreamingDataset(
            local=str(directory), shuffle=True, batch_size=BATCH, shuffle_seed=1
        )
        if state is not None:
            dataset.load_state_dict(state)
        return dataset

    def first(dataset: Any) -> None:
        for _ in itertools.islice(dataset, BATCH):
            pass

    before = anonymous_bytes()
    started = time.perf_counter()
    dataset = opened(None)
    first(dataset)
    start = time.perf_counter() - started
    state = dataset.state_dict(num_samples=dataset.num_samples // 2, from_beginning=True)
    del dataset
    started = time.perf_counter()
    first(opened(state))
    return measured(start, time.perf_counter() - started, before)


PROBES = {"ours": probe_ours, "theirs": probe_theirs}


def measured(start: float, seek: float, before: int) -> dict[str, float]:
    grown = (anonymous_bytes() - before) / 2**20
    return {"start_ms": 1e3 * start, "seek_ms": 1e3 * seek, "anonymous_mib": grown}


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind."""
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("Anonymous:"))


def link_rows(directory: Path, preparation: Any, size: int) -> None:
    """An examples directory of so many rows: one shard under as many names as it takes."""
    from preprocessing.building import special_ids
    from preprocessing.corruption import Sequences
    from preprocessing.rows import ROWS_PER_BATCH, Rows, record_batch
    from preprocessing.storage import Manifest, Shard, write_shard
    from preprocessing.vocabulary import Vocabulary

    special = special_ids(Vocabulary.load(preparation.tokenizer_directory))
    length, count = 128, min(size, SHARD_ROWS)
    chooser = np.random.default_rng(0)
    row = np.arange(ROWS_PER_BATCH + 1)
    folder = directory / "train" / "copy-000"
    folder.mkdir(parents=True)

    def batch(rows: int) -> Any:
        tokens = chooser.integers(5, special.size, (rows, length))
        tokens[:, 0], tokens[:, -1] = special.start, special.separator
        sequences = Sequences(
            tokens=tokens.reshape(-1),
            offsets=row[: rows + 1] * length,
            ids=np.arange(rows).astype(np.uint64),
            first_lengths=np.full(rows, length),
            labels=np.full(rows, -1),
            marks=np.zeros(0, dtype=np.uint8),
        )
        return record_batch(Rows(sequences, row[:rows], rows), np.uint16)

    first = folder / "part-00000.arrow"
    with write_shard(first, batch(0).schema, ROWS_PER_BATCH) as writer:
        for begun in range(0, count, ROWS_PER_BATCH):
            writer.write(batch(min(ROWS_PER_BATCH, count - begun)))
        shard = writer.finish("train/copy-000/part-00000.arrow", {})
    shards = [shard]
    for number in range(1, -(-size // count)):
        name = f"train/copy-000/part-{number:05d}.arrow"
        os.link(first, directory / name)
        shards.append(Shard(name, shard.rows, shard.size, shard.checksum))
    facts = {
        "length": length,
        "decoder_length": None,
        "rows_per_batch": ROWS_PER_BATCH,
        "label": None,
        "static": False,
        "max_targets": {"masked_lm": 20},
        "max_sequences": 1,
        "decoder_targets": [],
        "splits": {"train": 1},
        "special": vars(special),
        "tables": {},
        "tokenizer": "",
    }
    Manifest("examples", {}, {}, tuple(shards), facts=facts).write(directory)


def link_stream(directory: Path, size: int) -> None:
    """The same for mosaicml-streaming."""
    _, MDSWriter = import_streaming()
    count = min(size, SHARD_ROWS)
    ids = np.arange(128, dtype=np.uint16)
    with MDSWriter(
        out=str(directory), columns={"ids": "ndarray:uint16:128"}, size_limit=2**31
    ) as writer:
        for _ in range(count):
            writer.write({"ids": ids})
    index = json.loads((directory / "index.json").read_text())
    (shard,) = index["shards"]
    first = directory / shard["raw_data"]["basename"]
    for number in range(1, -(-size // count)):
        name = f"shard.{number:05d}.mds"
        os.link(first, directory / name)
        index["shards"].append({**shard, "raw_data": {**shard["raw_data"], "basename": name}})
    (directory / "index.json").write_text(json.dumps(index))


def import_streaming() -> tuple[Any, Any]:
    """``StreamingDataset`` and ``MDSWriter``, also where there is no torchvision.

    The library imports it for datasets of images, which nothing here reads.
    """
    if importlib.util.find_spec("torchvision") is None:
        for name in ("", ".datasets", ".transforms", ".transforms.functional"):
            stand_in: ModuleType = MagicMock()
            stand_in.__spec__ = importlib.machinery.ModuleSpec(f"torchvision{name}", None)
            sys.modules[f"torchvision{name}"] = stand_in
        sys.modules["torchvision.datasets"].VisionDataset = object
    import streaming

    return streaming.StreamingDataset, streaming.MDSWriter


if __name__ == "__main__":
    main()
