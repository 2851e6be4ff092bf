"""Checkpoints written while the training goes on are those that it would have waited for."""

from __future__ import annotations

import errno
import os
import signal
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import pytest
import torch
from background_runs import BEHIND, assert_same_checkpoints, held_up, states, told, writes
from faults import Fault, run_faulty
from small_run import Job, records, run_job
from snapshots import Snapshots
from spawned import spawn

from pipeline.training.agreement import Agreed
from pipeline.training.checkpoints.background import host_copy
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state

SHORT = ("phases.0.steps=8", "phases.1.steps=1", "train.keep_checkpoints=9")
"""Saves after steps 4, 8 and 9."""
LOCAL = ("train.engine=local", *SHORT)


# -- two ranks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def root(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training saved both ways by two ranks, one of which writes slowly."""
    root = tmp_path_factory.mktemp("behind")
    spawn(overlap, 2, recipe, root)
    return root


def overlap(rank: int, recipe: Path, root: Path) -> None:
    run_job(recipe, Job(root / "waited", SHORT))
    with held_up(4, until=6, here=rank == 1):
        run_job(recipe, Job(root / "slow", (*SHORT, BEHIND)))


def test_steps_go_on_while_one_rank_writes(root: Path) -> None:
    order = told(root / "slow")
    whole = order.index(("checkpoint", 4))
    assert order.index(("step", 6)) < whole < order.index(("checkpoint", 8))
    assert records(root / "slow", "train") == records(root / "waited", "train")
    assert_same_checkpoints(root / "slow", root / "waited")


FORMS = {
    "stage0": ("deepspeed.zero_stage=0",),
    "stage1-adamw": ("deepspeed.zero_stage=1", "optimizer={kind: adamw}"),
    "stage2-bf16": ("deepspeed.zero_stage=2", "train.precision=bf16"),
    "offloaded": ("deepspeed.zero_stage=2", "deepspeed.offload_optimizer=cpu"),
    "stage3": ("deepspeed.zero_stage=3",),
    "stage3-bf16": ("deepspeed.zero_stage=3", "train.precision=bf16"),
}


@pytest.fixture(scope="module")
def many(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything below is done by the same two processes."""
    many = tmp_path_factory.mktemp("many")
    spawn(train_many, 2, recipe, many)
    return many


def train_many(rank: int, recipe: Path, root: Path) -> None:
    from deepspeed.runtime.zero.partition_parameters import Init

    run_job(recipe, Job(root / "waited", SHORT))
    fill_one_disk(rank, recipe, root)
    end_early(rank, recipe, root)
    for name, form in FORMS.items():
        for behind in (False, True):
            settings = (*SHORT, *form, f"train.asynchronous_saves={behind}")
            Init.param_id = 0  # it numbers the tensors of a process
            run_job(recipe, Job(root / name / str(behind), settings))
    train_apart(rank, recipe, root)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_same_bytes_at_every_stage(many: Path, form: str) -> None:
    assert_same_checkpoints(many / form / "True", many / form / "False")


def fill_one_disk(rank: int, recipe: Path, root: Path) -> None:
    """One rank cannot write its part of the second checkpoint; then there is room again."""

    def full(path: Path) -> None:
        if rank == 1 and "step-00000008" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    output = root / "full"
    with writes(full), pytest.raises(Agreed) as caught:
        run_job(recipe, Job(output, (*SHORT, BEHIND)))
    (root / f"problem{rank}").write_text(str(caught.value))
    torch.distributed.barrier()  # one rank clears away what was written
    newest = Checkpoints(output / "checkpoints").latest()
    assert newest is not None
    assert newest.name == "step-00000004"
    assert not list((output / "checkpoints").glob(".*"))
    run_job(recipe, Job(output, (*SHORT, BEHIND)))


@pytest.mark.slow
def test_rank_without_room_stops_all_at_a_later_step(many: Path) -> None:
    problems = [(many / f"problem{rank}").read_text() for rank in (0, 1)]
    assert problems[0] == problems[1]
    assert problems[0].startswith(f"rank 1: {many}/full/checkpoints: the checkpoint could not")
    assert "No space left on device" in problems[0]
    assert records(many / "full", "train") == records(many / "waited", "train")
    assert_same_checkpoints(many / "full", many / "waited")


def end_early(rank: int, recipe: Path, root: Path) -> None:
    """Stopped by a rule, both ranks finish what is pending; failed each alone, they do not."""
    rarely = (*SHORT, BEHIND, "train.log_every=100")
    rule = "train.stop_if=[{kind: not_below, loss: 0.01, step: 6, over: 2}]"
    with held_up(4, until=5, here=rank == 1):
        reason = run_faulty(recipe, Job(root / "ruled", (*rarely, rule)))
    assert reason is not None
    run_job(recipe, Job(root / "failed", rarely, stop_at=6))
    left = [path.name for path in (root / "failed" / "checkpoints").iterdir()]
    (root / f"left{rank}").write_text(" ".join(left))
    torch.distributed.barrier()
    run_job(recipe, Job(root / "failed", (*SHORT, BEHIND)))


@pytest.mark.slow
def test_what_is_pending_is_finished_where_all_ranks_stop_alike(many: Path) -> None:
    assert [*states(many / "ruled")] == [4]
    assert told(many / "ruled") == [("stopped", 6), ("checkpoint", 4)]
    for rank in (0, 1):
        assert (many / f"left{rank}").read_text() == ".step-00000004.writing"
    assert not list((many / "failed" / "checkpoints").glob(".*"))
    assert records(many / "failed", "train") == records(many / "waited", "train")
    assert_same_checkpoints(many / "failed", many / "waited")


def train_apart(rank: int, recipe: Path, root: Path) -> None:
    """Two hosts with a directory each, and a store; the second loses everything."""
    os.environ["LOCAL_RANK"] = "0"
    for behind in (False, True):
        place = root / "apart" / str(behind)
        stored = (f"output.upload=file://{place}/store", "output.shared=false")
        output = place / f"host{rank}"
        settings = (*SHORT, *stored, f"train.asynchronous_saves={behind}")
        run_job(recipe, Job(output, settings))


@pytest.mark.slow
def test_hosts_without_a_shared_directory_upload_the_same(many: Path) -> None:
    waited, behind = many / "apart" / "False", many / "apart" / "True"
    for host in ("host0", "host1"):
        assert_same_checkpoints(behind / host, waited / host)
    found = [
        sorted(path.relative_to(place).as_posix() for path in (place / "store").rglob("*"))
        for place in (behind, waited)
    ]
    assert found[0] == found[1]
    assert [f"store/step-{step:08d}/COMPLETE.json" in found[0] for step in (4, 8, 9)] == [True] * 3
    parts = read_state(behind / "host1" / "checkpoints" / "step-00000004").parts
    assert parts == (1,)


# -- one process -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def waited(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("waited") / "run"
    run_job(recipe, Job(output, LOCAL))
    return output


def test_kill_at_every_moment_of_a_save_in_the_background(
    recipe: Path, waited: Path, tmp_path: Path
) -> None:
    """Every copy stands whole where its newest checkpoint says, and some are gone on from."""
    copies = tmp_path / "copies"
    with Snapshots(tmp_path / "run", copies).everywhere():
        run_job(recipe, Job(tmp_path / "run", (*LOCAL, BEHIND)))
    taken = sorted(copies.iterdir())
    assert {path.name[5:] for path in taken} >= {"half-torch-save", "half-weights", "fsync"}
    newest = []
    for path in taken:
        whole = max(states(path), default=0)
        acknowledged = [step for what, step in told(path) if what == "checkpoint"]
        assert whole >= max(acknowledged, default=0)
        newest.append(whole)
    assert {*newest} == {0, 4, 8, 9}
    for path in [path for path, step in zip(taken, newest, strict=True) if step][::17]:
        run_job(recipe, Job(path, (*LOCAL, BEHIND)))
        assert records(path, "train") == records(waited, "train")
        assert_same_checkpoints(path, waited)


def killed_while_writing(recipe: Path, output: Path) -> None:
    def kill(path: Path) -> None:
        if "step-00000008" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)

    with writes(kill):
        run_job(recipe, Job(output, (*LOCAL, BEHIND)))


@pytest.mark.slow
def test_process_killed_by_its_writing_thread_goes_on_from_the_checkpoint_before(
    recipe: Path, waited: Path, tmp_path: Path
) -> None:
    process = torch.multiprocessing.get_context("spawn").Process(
        target=killed_while_writing, args=(recipe, tmp_path)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [*states(tmp_path)] == [4]
    assert (tmp_path / "checkpoints" / ".step-00000008.writing").exists()
    run_job(recipe, Job(tmp_path, (*LOCAL, BEHIND)))
    assert records(tmp_path, "train") == records(waited, "train")
    assert_same_checkpoints(tmp_path, waited)


def test_failure_of_the_only_rank_finishes_what_is_pending(
    recipe: Path, waited: Path, tmp_path: Path
) -> None:
    with held_up(4, until=6):
        run_job(recipe, Job(tmp_path, (*LOCAL, BEHIND, "train.log_every=100"), stop_at=7))
    assert told(tmp_path) == [("checkpoint", 4)]
    assert states(tmp_path)[4].weights == states(waited)[4].weights


def test_full_disk_after_a_failure_is_told_and_hides_nothing(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = (*LOCAL, BEHIND, "train.log_every=100")
    rule = "train.stop_if=[{kind: not_below, loss: 0.01, step: 6, over: 2}]"
    with writes(full):
        reason = run_faulty(recipe, Job(tmp_path, (*settings, rule)))
    assert reason is not None
    assert reason.startswith("stopped after step 6")
    assert "No space left on device" in capsys.readouterr().err
    assert not states(tmp_path)


def test_set_back_finishes_what_is_pending_first(recipe: Path, tmp_path: Path) -> None:
    """The loss rises from step 10 on; by then nobody has asked for the checkpoint of step 8."""
    spike = "train.guards.spike={window: 4, patience: 2, rewinds: 1}"
    settings = ("train.engine=local", "phases.1.steps=4", "train.log_every=100", spike)
    rise = Fault("raised", 10, 13)
    run_faulty(recipe, Job(tmp_path / "waited", settings), rise)
    with held_up(8, until=11):
        run_faulty(recipe, Job(tmp_path / "behind", (*settings, BEHIND)), rise)
    expected = [("checkpoint", 4), ("checkpoint", 8), ("set_back", 8)]
    assert [e for e in told(tmp_path / "behind") if e in expected] == expected
    assert_same_checkpoints(tmp_path / "behind", tmp_path / "waited")


# -- copies ----------------------------------------------------------------------------------------


def test_copy_is_written_to_the_same_bytes_whatever_happens_to_the_original() -> None:
    flat = torch.arange(12.0, requires_grad=True)
    named = torch.ones(3)
    named.ds_id = "group_0"
    modules = OrderedDict(first=flat.detach()[2:4], second=flat.detach()[4:10].view(2, 3).t())
    modules._metadata = {"": {"version": 1}}
    content = {
        "modules": modules,
        "slice": flat[:7],  # no leaf
        "masters": [named, (flat, torch.empty(0))],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "shape": torch.Size((3, 4)),
        "settings": {"betas": (0.9, 0.999), "steps": [1, 2]},
    }
    expected, copied = saved(content), host_copy(content)

    with torch.no_grad():
        flat.zero_()
    named.zero_()
    content["settings"]["steps"].append(3)
    assert saved(copied) == expected
    assert saved(content) != expected
    assert copied["modules"]["first"].tolist() == [2, 3]
    ours = copied["slice"].untyped_storage().data_ptr()
    assert ours == copied["masters"][1][0].untyped_storage().data_ptr()
    assert ours != flat.untyped_storage().data_ptr()


def saved(content: object) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()
