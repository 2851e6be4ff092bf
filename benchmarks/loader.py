"""Arrow rows to masked batches: ours beside transformers' collator, on the same rows, one process.

    python benchmarks/loader.py [--quick] [--json]

Ours gives exact target counts by keyed draws and lays out positions and sequence ids; theirs is
``DataCollatorForLanguageModeling`` behind a ``DataLoader`` over ``datasets``.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path

import torch
from measure import alternate, tell

BATCH = 64
RECIPE = """
seed: 1
corpus: {{directory: {root}/data, inputs: [{root}/text.jsonl], form: jsonl, workers: 2,
         validation: {{heldout: {{share: 0.05}}}}}}
tokenizer: {{kind: wordpiece, vocab_size: 8192}}
examples:
  rows-128: {{length: 128, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
  rows-512: {{length: 512, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less text, fewer rounds")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    options = parser.parse_args()
    ratios, figures = {}, {}
    with tempfile.TemporaryDirectory() as root:
        preparation = prepare(Path(root), megabytes=2 if options.quick else 10)
        for length in (128, 512):
            speeds = compare(preparation, length, rounds=3 if options.quick else 7)
            ratios[f"batches_vs_hf_collator_{length}"] = speeds["ours"] / speeds["theirs"]
            figures[f"tokens_per_second_{length}"] = speeds["ours"]
            figures[f"tokens_per_second_{length}_hf_collator"] = speeds["theirs"]
    tell(ratios, figures, as_json=options.json)


def prepare(root: Path, megabytes: float):
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


def compare(preparation, length: int, *, rounds: int) -> dict[str, float]:
    from datasets import load_dataset
    from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

    from pipeline.data import RowSource, to_batch

    torch.set_num_threads(1)
    directory = preparation.examples_directory(f"rows-{length}")
    corruption = preparation.examples[f"rows-{length}"].corruption
    rows = RowSource(directory, "train", corruption, preparation.seed, 0).open()
    num_batches = min(rows.num_rows // BATCH, 100)
    positions = itertools.count()

    def ours() -> int:
        first = next(positions) * num_batches * BATCH
        for number in range(num_batches):
            begin = first + number * BATCH
            to_batch(rows.arrays(range(begin, begin + BATCH)))
        return num_batches * BATCH * length

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(preparation.tokenizer_directory / "tokenizer.json"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )
    files = sorted(str(path) for path in directory.glob("train/**/*.arrow"))
    dataset = load_dataset("arrow", data_files=files, split="train", cache_dir=str(directory))
    dataset = dataset.select_columns(["ids"]).rename_column("ids", "input_ids")
    dataset = dataset.select(range(num_batches * BATCH))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        collate_fn=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15),
    )

    def theirs() -> int:
        for _ in loader:
            pass
        return num_batches * BATCH * length

    medians, _ = alternate({"ours": ours, "theirs": theirs}, rounds=rounds)
    return medians


if __name__ == "__main__":
    main()
