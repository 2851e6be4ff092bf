"""Training with compiled blocks: what is compiled when, and that runs stay functions of steps."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import Job, records, run_job, run_jobs, write_corpus
from spawned import spawn
from torch import Tensor

RECIPE = """
seed: 3
corpus: {{directory: {root}/data, inputs: ["{root}/text.txt"],
         validation: {{heldout: {{share: 0.1}}}}}}
tokenizer: {{kind: wordpiece, vocab_size: 300}}
examples:
  apart: {{length: 24, layout: {{kind: blocks}}, corruption: {{kind: masked}}}}
  packed: {{length: 48, layout: {{kind: blocks}}, pack: true,
            corruption: {{kind: masked}}}}
  lengths: {{length: 64, layout: {{kind: blocks}}, corruption: {{kind: masked}}, buckets: [32]}}
model: {{family: bert, vocab_size: 320, hidden_size: 32, num_layers: 10, num_heads: 2,
         intermediate_size: 64, max_positions: 64, next_sentence: false}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant, warmup_steps: 2}}
phases:
  - {{examples: apart, steps: 14, batch_rows: 4, learning_rate: 4e-3}}
  - {{examples: packed, steps: 14, batch_rows: 4, learning_rate: 4e-3}}
  - {{examples: lengths, block: 12, steps: 12, batch_rows: 4, learning_rate: 4e-3}}
train: {{engine: local, compile: true, micro_batch_rows: 2, log_every: 1, evaluate_every: 15,
         save_every: 10, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 8, micro_batch_rows: 4}}
output: {{directory: {root}/run}}
"""


@pytest.fixture(scope="module")
def three_phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from configs.schema import load
    from preprocessing.commands import run_preparation
    from preprocessing.settings import decode_preparation

    root = tmp_path_factory.mktemp("phases")
    write_corpus(root / "text.txt")
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    for _ in run_preparation(decode_preparation(load(recipe))):
        pass
    return recipe


def forms(sequence_ids: Tensor) -> set[str]:
    """What there is among the rows of a micro-batch."""
    found = set()
    for row in sequence_ids:
        several, padded = int(row.max()) > 1, bool((row == 0).any())
        found |= {"several"} if several else set()
        found |= {"padded"} if padded else {"full"}
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_only_new_shapes_are_compiled(
    three_phases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    from pipeline.training.loop import Trainer

    graphs = 0
    seen: set[str] = set()
    shapes: set[torch.Size] = set()
    late: list[int] = []

    def count(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    step = Trainer.step

    def watched(self: Trainer, number: int, fed: Any) -> Any:
        before, known = graphs, len(shapes)
        for one in fed.batches:
            seen.update(forms(one.batch.sequence_ids))
            shapes.add(one.batch.ids.shape)
        measured = step(self, number, fed)
        assert graphs - before == len(shapes) - known
        if number >= 20 and graphs > before:
            late.append(number)
        return measured

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=count))
    monkeypatch.setattr(Trainer, "step", watched)
    run_job(three_phases, Job(tmp_path / "run", (f"train.precision={precision}",)))
    torch._dynamo.reset()
    assert seen == {"full", "several", "padded"}
    # A micro-batch of a bucket has as many tokens as one of whole rows.
    assert shapes == {torch.Size(shape) for shape in ((2, 24), (2, 48), (2, 64), (4, 32))}
    assert graphs == len(shapes) + 1  # and what shows beforehand that there is a compiler
    assert all(number >= 28 for number in late)  # the first two steps of the third phase
    assert len(late) <= 2
    assert len(records(tmp_path / "run", "train")) == 40


def test_without_a_compiler_a_sentence_says_what_to_do(three_phases: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "pipeline/train.py", str(three_phases)),
            f"output.directory={tmp_path / 'run'}",
        ],
        env={
            **os.environ,
            "CXX": "no-such-compiler",
            "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (told,) = [line for line in ended.stderr.splitlines() if "train.compile" in line]
    assert "No working C++ compiler" in told
    assert "or set train.compile: false" in told
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


SHORT = ("phases.0.steps=4", "phases.1.steps=4", "train.save_every=3", "train.evaluate_every=4")
"""Lengths 32 and 48, eight steps; three micro-batches a step, so two ranks have an idle one."""
COMPILED = ("train.compile=true", *SHORT)


def _two_ranks(rank: int, recipe: Path, root: Path) -> None:
    """Stages 0 to 2; a run that stops; and how often torch compiled."""
    from torch._dynamo.utils import counters

    compiled = []
    for stage in (1, 0, 2):
        run_job(recipe, Job(root / f"stage{stage}", (*COMPILED, f"deepspeed.zero_stage={stage}")))
        compiled.append(counters["stats"]["unique_graphs"])
    run_job(recipe, Job(root / "moved", COMPILED, stop_at=5))
    compiled.append(counters["stats"]["unique_graphs"])
    (root / f"compiled{rank}.json").write_text(json.dumps(compiled))


@pytest.mark.slow
def test_compiled_runs_are_functions_of_the_step(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spawn(_two_ranks, 2, recipe, tmp_path)
    capfd.readouterr()
    run_jobs(
        recipe,
        [
            Job(tmp_path / "moved", COMPILED),
            Job(tmp_path / "local", (*COMPILED, "train.engine=local")),
            Job(tmp_path / "plain", (*SHORT, "train.engine=local")),
            Job(tmp_path / "stage3", (*COMPILED, "phases.0.steps=1", "deepspeed.zero_stage=3")),
        ],
        ranks=1,
    )
    assert "train.compile: blocks stay as they are at ZeRO stage 3" in capfd.readouterr().err

    def losses(name: str) -> list[float]:
        # After a resume the steps since the checkpoint stand there once more, the last time right.
        found = {record["step"]: record["loss"] for record in records(tmp_path / name, "train")}
        return [found[step] for step in range(1, 9)]

    undisturbed = losses("stage1")
    for name in ("stage0", "stage2", "moved", "local"):
        # 8e-8 was measured, and 6e-5 where the same run draws other masks, as blocks do that
        # are not compiled.
        assert losses(name) == pytest.approx(undisturbed, rel=1e-6), name
    assert losses("plain") != pytest.approx(undisturbed, rel=2e-5)
    validation = {
        name: [record["loss"] for record in records(tmp_path / name, "validation")]
        for name in ("stage1", "moved")
    }
    assert validation["moved"] == pytest.approx(validation["stage1"], rel=1e-6)
    for rank in range(2):
        # The blocks for two lengths, and the trial; later runs of the process share them.
        counts = json.loads((tmp_path / f"compiled{rank}.json").read_text())
        assert counts == [3, 3, 3, 3]
