"""The seam probe: three twins of what is to come, by the engines, ranks and checkpoints there are.

Measured (fp32, CPU): losses and gradient norms of two ranks at every stage, and of runs that went
on from one rank to two and to three, differ from the local engine's by at most 2.5e-7, relatively,
and memory by 1e-6.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from seam_runs import TwinJob, run_twin, run_twins
from small_run import records
from twins import TWINS

from pipeline.training.checkpoints.checkpoint import MEMORY_FILE, Checkpoints

BOUND = 1e-6
STEPS = 6
FORMS = {
    **{f"stage-{number}": (f"deepspeed.zero_stage={number}",) for number in (0, 1, 2, 3)},
    "zero-init": ("deepspeed.zero_stage=3", "deepspeed.zero_init=true"),
}


def assert_same_training(output: Path, reference: Path, twin: str) -> None:
    """The same examples, and losses and memory within the bound, up to the last step."""
    found, expected = records(output, "train"), records(reference, "train")
    assert [one["fingerprint"] for one in found] == [one["fingerprint"] for one in expected]
    assert len(found) == STEPS
    for key in ("loss", "gradient_norm"):
        assert [one[key] for one in found] == pytest.approx(
            [one[key] for one in expected], rel=BOUND
        ), key
    (judged,), (wanted,) = records(output, "validation"), records(reference, "validation")
    assert judged["loss"] == pytest.approx(wanted["loss"], rel=BOUND)
    ends = [one / "checkpoints" / f"step-{STEPS:08d}" / MEMORY_FILE for one in (output, reference)]
    assert [end.exists() for end in ends] == [twin == "stream"] * 2
    if twin == "stream":
        kept, known = (load_file(end) for end in ends)
        assert kept["filled"].equal(known["filled"])
        assert kept["layer_1"].shape[0] == 12
        for name, tensor in known.items():
            torch.testing.assert_close(kept[name], tensor, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def moved(recipe: Path, local: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each local run gone on with from its second step, on two ranks at stage 3."""
    root = tmp_path_factory.mktemp("moved")
    jobs = []
    for twin in TWINS:
        shutil.copytree(local / twin, root / twin)
        Checkpoints(root / twin / "checkpoints").set_back(2)
        jobs.append(TwinJob(twin, root / twin, FORMS["stage-3"]))
    run_twins(recipe, jobs, ranks=2)
    return root


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_moves_from_one_process_to_two_ranks_at_stage_3(
    moved: Path, local: Path, twin: str
) -> None:
    resumed = [one for one in records(moved / twin, "event") if one["event"] == "resume"]
    assert [(one["step"], one["ranks"], one["engine"]) for one in resumed] == [(2, 2, "deepspeed")]
    assert_same_training(moved / twin, local / twin, twin)


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_learns(local: Path, twin: str) -> None:
    losses = [one["loss"] for one in records(local / twin, "train")]
    assert losses[-1] < 0.99 * losses[0]


@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_may_recompute_its_activations(
    recipe: Path, local: Path, tmp_path: Path, twin: str
) -> None:
    recomputing = ("train.engine=local", "train.activation_checkpointing=full")
    run_twin(recipe, TwinJob(twin, tmp_path, recomputing))
    assert_same_training(tmp_path, local / twin, twin)


@pytest.fixture(scope="module")
def staged(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each twin at each stage: on two ranks, and from one rank on to two and to three."""
    root = tmp_path_factory.mktemp("staged")

    def jobs(kind: str, stop_at: int | None = None) -> list[TwinJob]:
        return [
            TwinJob(twin, root / kind / f"{twin}-{form}", overrides, stop_at)
            for twin in TWINS
            for form, overrides in FORMS.items()
        ]

    run_twins(recipe, jobs("grown", stop_at=2), ranks=1)
    run_twins(recipe, [*jobs("grown", stop_at=4), *jobs("two")], ranks=2)
    run_twins(recipe, jobs("grown"), ranks=3)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["two", "grown"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("twin", TWINS)
def test_a_twin_trains_alike_at_every_stage_and_on_any_number_of_ranks(
    staged: Path, local: Path, twin: str, form: str, kind: str
) -> None:
    output = staged / kind / f"{twin}-{form}"
    resumed = [one for one in records(output, "event") if one["event"] == "resume"]
    steps = {"two": [], "grown": [(2, 2), (4, 3)]}[kind]
    assert [(one["step"], one["ranks"]) for one in resumed] == steps
    assert_same_training(output, local / twin, twin)
