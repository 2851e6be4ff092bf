"""Raw text to ids and to rows: ours beside the tokenizer library and beside the run_mlm way.

    python benchmarks/preprocessing.py [--quick] [--json]

Reads the corpora that LEXMILL_DATA names. Every measurement has a process of its own, one thread,
and begins with an empty dictionary; imports and training a vocabulary are not counted, nor is
loading it where texts lie in memory.
Memory is the peak of anonymous memory of that process and its children.

- ids: texts in memory to ids, WordPiece; ours and ``encode_batch_fast``.
- bytes: the same, byte-level BPE.
- hop: document shards to token shards with sentences and word starts; ours against
  ``encode_batch_fast`` on the same texts in memory, which writes nothing.
- rows: a raw file to rows of 512 tokens; ours ingests, deduplicates, tokenizes and cuts blocks,
  theirs is ``load_dataset``, ``map`` to tokenize and ``map`` to group, as the ``run_mlm`` example
  of transformers has it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from measure import tell

CORPORA = {"en": "en_novels", "zh": "zh_novels", "de": "de_novels", "ja": "ja_aozora"}
LENGTH = 512
ENVIRONMENT = {  # one thread, nothing fetched
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
STAGE_MODULES = [
    f"preprocessing.stages.{name}"
    for name in ("ingest", "signatures", "matches", "deduplicate", "tokenize", "build_examples")
]
RECIPE = """
seed: 1
corpus: {{directory: {root}/data, inputs: [{root}/text.txt]}}
tokenizer: {{kind: existing, path: {root}/wordpiece, name: wordpiece}}
examples:
  rows: {{length: 512, layout: {{kind: blocks}}, pack: true, corruption: {{kind: masked}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="less text, one round")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, folder = options.measure
        print(json.dumps(MEASURES[what](Path(folder))))
        return
    if "LEXMILL_DATA" not in os.environ:
        sys.exit("LEXMILL_DATA is not set: it names the folder with the corpora")
    ratios: dict[str, float] = {}
    figures: dict[str, float] = {}
    for language, name in CORPORA.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            limit = (8 if language == "en" else 1) * 10**6 if options.quick else None
            write_text(Path(os.environ["LEXMILL_DATA"]) / name, root, limit)
            run("train", root)
            wanted = [what for what in MEASURES if what != "train"]
            if options.quick:
                wanted = [w for w in wanted if language == "en" or w.startswith("ids")]
            told = compare(root, wanted, rounds=1 if options.quick else 3)
        suffix = "" if language == "en" else f"_{language}"  # English decides
        for what, speed, memory in told:
            figures[f"{what}{suffix}_tokens_per_second"] = speed
            figures[f"{what}{suffix}_peak_mib"] = memory
        speeds = {what: speed for what, speed, _ in told}
        for ratio, ours, theirs in RATIOS:
            if ours in speeds:
                ratios[ratio + suffix] = speeds[ours] / speeds[theirs]
    tell(ratios, figures, as_json=options.json)


def write_text(source: Path, root: Path, limit: int | None) -> None:
    """One file of documents with blank lines between them, of so many bytes at most."""
    paths = [path for path in sorted(source.glob("*.txt")) if path.name != "SOURCE.txt"]
    joined = b"\n\n".join(path.read_bytes().strip() for path in paths)
    if limit is not None:
        joined = joined[:limit].decode(errors="ignore").encode()
    (root / "text.txt").write_bytes(joined + b"\n")


def compare(root: Path, wanted: list[str], *, rounds: int) -> list[tuple[str, float, float]]:
    """Median speed and greatest memory of each, measured in turns."""
    speeds: dict[str, list[float]] = {what: [] for what in wanted}
    memory = dict.fromkeys(wanted, 0.0)
    for _ in range(rounds):
        for what in wanted:
            result, peak = run(what, root)
            speeds[what].append(result["tokens"] / result["seconds"])
            memory[what] = max(memory[what], peak)
    return [(what, statistics.median(speeds[what]), memory[what]) for what in wanted]


def run(what: str, root: Path) -> tuple[dict[str, Any], float]:
    """Measure in a process of its own: what it prints, and its peak in MiB."""
    command = [sys.executable, __file__, "--measure", what, str(root)]
    path = f"{Path(__file__).parents[1]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": path}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
        if process.returncode:
            sys.exit(f"{what}: failed with exit code {process.returncode}")
        output.seek(0)
        return json.loads(output.read().splitlines()[-1]), peak / 2**20


def anonymous_bytes(pid: int) -> int:
    total = 0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    total += int(line.split()[1]) * 1024
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return total


def timed(work: Callable[[], int]) -> dict[str, Any]:
    begun = time.perf_counter()
    tokens = work()
    return {"tokens": tokens, "seconds": time.perf_counter() - begun}


def documents(root: Path) -> list[str]:
    return [text for text in (root / "text.txt").read_text().split("\n\n") if text.strip()]


def tokenizer(root: Path, name: str) -> Any:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(root / name / "tokenizer.json"))
    loaded.encode_special_tokens = True
    return loaded


def train(root: Path) -> dict[str, Any]:
    """A WordPiece vocabulary of BERT's size and a byte-level one, of these documents."""
    from tokenizers import models, pre_tokenizers, trainers
    from tokenizers.implementations import BertWordPieceTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = documents(root)
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(texts, vocab_size=30522, show_progress=False, special_tokens=special)
    units = type(pieces._tokenizer)(models.BPE())
    units.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=30522, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    units.train_from_iterator(texts, trainer)
    for name, trained in (("wordpiece", pieces), ("bytes", units)):
        (root / name).mkdir()
        trained.save(str(root / name / "tokenizer.json"))
    return {}


def encode_ours(root: Path, name: str) -> dict[str, Any]:
    import numpy as np
    import pyarrow as pa

    from preprocessing.texts import Texts
    from preprocessing.tokenization.choice import encoder_of

    texts = Texts.of(pa.array(documents(root), pa.large_string()))
    encoder = encoder_of(tokenizer(root, name))
    return timed(lambda: len(encoder.encode(texts, np.zeros(0, np.int64)).ids))


def encode_theirs(root: Path, name: str) -> dict[str, Any]:
    texts, library = documents(root), tokenizer(root, name)
    return timed(
        lambda: sum(len(e) for e in library.encode_batch_fast(texts, add_special_tokens=False))
    )


def prepare(root: Path) -> Any:
    from configs.schema import load
    from preprocessing.settings import decode_preparation

    for name in (*STAGE_MODULES, "preprocessing.tokenization.choice", "pandas"):
        importlib.import_module(name)  # imports are not measured; pyarrow brings pandas along
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    return decode_preparation(load(root / "recipe.yaml"))


def run_stages(preparation: Any, *names: str) -> dict[str, int]:
    from preprocessing.commands import run_preparation

    totals: dict[str, int] = {}
    for outcome in run_preparation(preparation, names):
        totals = outcome.manifest.totals()
    return totals


def hop_ours(root: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        preparation = fresh(root, Path(folder))
        run_stages(preparation, "ingest", "deduplicate", "tokenizer")
        return timed(lambda: run_stages(preparation, "tokenize")["tokens"])


def rows_ours(root: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=root) as folder:
        preparation = fresh(root, Path(folder))
        documents = timed(lambda: run_stages(preparation, "ingest", "deduplicate")["rows"])
        run_stages(preparation, "tokenizer")
        rows = timed(lambda: run_stages(preparation, "tokenize", "examples")["tokens"])
        return {"tokens": rows["tokens"], "seconds": documents["seconds"] + rows["seconds"]}


def fresh(root: Path, folder: Path) -> Any:
    """A configuration for the same inputs that writes to another folder."""
    for name in ("text.txt", "wordpiece"):
        (folder / name).symlink_to(root / name)
    return prepare(folder)


def rows_theirs(root: Path) -> dict[str, Any]:
    import datasets
    from transformers import PreTrainedTokenizerFast

    datasets.disable_progress_bars()
    library = PreTrainedTokenizerFast(
        tokenizer_file=str(root / "wordpiece" / "tokenizer.json"),
        cls_token="[CLS]",
        sep_token="[SEP]",
    )

    def tokenize(examples: dict[str, list[str]]) -> Any:
        return library(examples["text"], return_special_tokens_mask=True)

    def group(examples: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {key: [i for own in values for i in own] for key, values in examples.items()}
        total = len(joined["input_ids"]) // LENGTH * LENGTH
        return {
            key: [values[start : start + LENGTH] for start in range(0, total, LENGTH)]
            for key, values in joined.items()
        }

    def work() -> int:
        with tempfile.TemporaryDirectory(dir=root) as cache:
            raw = datasets.load_dataset(
                "text", data_files=str(root / "text.txt"), cache_dir=cache, split="train"
            )
            options = {"batched": True, "batch_size": 1000}
            ids = raw.map(tokenize, remove_columns=["text"], **options)
            return LENGTH * ids.map(group, **options).num_rows

    library("a")  # it warns of long texts once
    return timed(work)


MEASURES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "train": train,
    "ids": lambda root: encode_ours(root, "wordpiece"),
    "ids_encode_batch_fast": lambda root: encode_theirs(root, "wordpiece"),
    "bytes": lambda root: encode_ours(root, "bytes"),
    "bytes_encode_batch_fast": lambda root: encode_theirs(root, "bytes"),
    "hop": hop_ours,
    "rows": rows_ours,
    "rows_run_mlm": rows_theirs,
}
RATIOS = (
    ("ids_vs_encode_batch_fast", "ids", "ids_encode_batch_fast"),
    ("bytes_vs_encode_batch_fast", "bytes", "bytes_encode_batch_fast"),
    ("hop_vs_encode_batch_fast", "hop", "ids_encode_batch_fast"),
    ("rows_vs_run_mlm", "rows", "rows_run_mlm"),
)

if __name__ == "__main__":
    main()
