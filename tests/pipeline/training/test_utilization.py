"""What a run says of its speed, against the formulas on the rows that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_run import Job, run_job

from configs.schema import load
from pipeline.data import Deal
from pipeline.data import load as load_batches
from pipeline.flops import Meter, cost
from pipeline.models import build_model
from pipeline.opening import open_data
from pipeline.settings import decode_run
from pipeline.training.feeding import feed

CPU = torch.device("cpu")
NAMES = ("masked_lm", "next_sentence")


def test_metrics_hold_the_shares_of_the_ceiling_that_real_and_all_work_take(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = ("train.engine=local", "phases.0.steps=2", "phases.1.steps=2")
    run_job(recipe, Job(tmp_path, settings))
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    (start,) = [record for record in records if record.get("event") == "start"]
    ceiling = start["ceiling_flops_per_second"]
    assert 1e9 < ceiling < 1e13
    assert f"{ceiling / 1e12:,.2f} TFLOP/s in fp32" in capfd.readouterr().err

    run = decode_run(load(recipe, settings))
    meter = Meter(cost(build_model(run.model)), "dense", fused=False)
    trained = [record for record in records if record["kind"] == "train"]
    for phase, rows in ((0, 24), (1, 16)):
        deal = Deal(
            first_position=0, steps=2, batch_rows=rows, micro_batch_rows=8, rank=0, world_size=1
        )
        steps = load_batches(open_data(run).phases[phase], deal, workers=0, pin=False)
        for batches, record in zip(steps, trained[2 * phase : 2 * phase + 2], strict=True):
            flops = [meter(one.batch) for one in batches]
            tokens = sum(int((one.batch.sequence_ids > 0).sum()) for one in batches)
            seconds = tokens / record["tokens_per_second"]
            real = sum(own.real for own in flops)
            spent = sum(own.spent for own in flops)
            assert record["mfu"] == pytest.approx(real / seconds / ceiling, rel=1e-9)
            assert record["hfu"] == pytest.approx(spent / seconds / ceiling, rel=1e-9)
            assert 0 < record["mfu"] < record["hfu"] < 1


def test_work_of_a_rank_without_rows_is_spent_and_not_real(recipe: Path) -> None:
    """Three micro-batches on two ranks: the second computes one for nothing."""
    run = decode_run(load(recipe))
    meter = Meter(cost(build_model(run.model)), "dense", fused=False)
    source = open_data(run).phases[0]
    deals = [
        Deal(first_position=0, steps=1, batch_rows=24, micro_batch_rows=8, rank=rank, world_size=2)
        for rank in range(2)
    ]
    loaded = [next(load_batches(source, deal, workers=0, pin=False)) for deal in deals]
    fed = [next(feed([batches], CPU, NAMES, meter=meter)).counts for batches in loaded]
    one = [meter(micro.batch) for batches in loaded for micro in batches if micro.fingerprint]
    assert len(one) == 3
    assert len({own.spent for own in one}) == 1
    assert [int(counts[-1]) for counts in fed] == [2 * one[0].spent] * 2
    assert sum(int(counts[-2]) for counts in fed) == sum(own.real for own in one)
    without = next(feed([loaded[1]], CPU, NAMES)).counts
    assert torch.equal(without, fed[1][:-2])
