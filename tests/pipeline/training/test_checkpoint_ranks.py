"""Checkpoints that several ranks write: killed at any moment, and on hosts that share no disk."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
import torch
from small_run import Job, records, run_job, weights
from snapshots import Snapshots
from spawned import spawn

from pipeline.training.agreement import Agreed
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state
from pipeline.training.checkpoints.integrity import find_damage, list_files
from pipeline.training.checkpoints.recovery import Offer, choose_step
from preprocessing.storage import InputError

SHORT = ("phases.0.steps=8", "phases.1.steps=1")
"""Saves after steps 4, 8 and 9."""


@pytest.fixture(scope="module")
def root(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything below is done by the same two processes, which takes a third of the time."""
    root = tmp_path_factory.mktemp("ranks")
    spawn(train_everything, 2, recipe, root)
    return root


def train_everything(rank: int, recipe: Path, root: Path) -> None:
    train_in_snapshots(rank, recipe, root)
    damage_one_part(rank, recipe, root)
    fill_one_disk(rank, recipe, root)
    os.environ["LOCAL_RANK"] = "0"  # each rank as the first one of a host
    train_apart(rank, recipe, root)


def train_in_snapshots(rank: int, recipe: Path, root: Path) -> None:
    """The undisturbed run, every moment of whose saves each rank copies; then some are resumed."""
    with Snapshots(root / "run", root / f"copies{rank}").everywhere():
        run_job(recipe, Job(root / "run", SHORT))
    for copy in chosen(root):
        run_job(recipe, Job(copy, SHORT))


def chosen(root: Path) -> list[Path]:
    """Copies to resume: some of each rank's, but none that is copied from before the first save."""
    copies = [
        *sorted((root / "copies0").iterdir())[::17],
        *sorted((root / "copies1").iterdir())[::9],
    ]
    return [copy for copy in copies if (copy / "checkpoints" / "latest").exists()]


def test_two_ranks_killed_at_any_moment_of_saving(root: Path) -> None:
    reference = records(root / "run", "train")
    resumed = chosen(root)
    assert len(resumed) >= 4
    for copy in resumed:
        assert records(copy, "train") == reference
    copies = [*(root / "copies0").iterdir(), *(root / "copies1").iterdir()]
    kinds = {path.name[5:] for path in copies}
    assert kinds >= {"half-torch-save", "half-weights", "half-write", "fsync", "after-rename"}
    for copy in {*copies} - {*resumed}:
        told = [e["step"] for e in records(copy, "event") if e["event"] == "checkpoint"]
        newest = Checkpoints(copy / "checkpoints").latest()
        if newest is None:
            assert not told
            continue
        state = read_state(newest)
        assert state.step >= max(told, default=0)
        assert state.parts == (0, 1)
        assert find_damage(newest, state.files, state.files) is None


def fill_one_disk(rank: int, recipe: Path, root: Path) -> None:
    """One rank cannot write its part of the second checkpoint; then there is room again."""
    write = torch.save

    def full(state: object, path: object, *rest: object, **how: object) -> None:
        if rank == 1 and "step-00000008" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(state, path, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(Agreed, match=r"rank 1: .*No space left on device.*make room"):
            run_job(recipe, Job(root / "full", SHORT))
    newest = Checkpoints(root / "full" / "checkpoints").latest()
    assert newest is not None
    assert newest.name == "step-00000004"
    run_job(recipe, Job(root / "full", SHORT))


def test_rank_without_room_stops_all_and_costs_one_checkpoint(root: Path) -> None:
    assert records(root / "full", "train") == records(root / "run", "train")
    expected = weights(root / "run")
    assert all(tensor.equal(expected[key]) for key, tensor in weights(root / "full").items())


def train_apart(rank: int, recipe: Path, root: Path) -> None:
    """Two hosts with a directory each; one falls behind, then loses everything."""
    apart = (*SHORT, "output.shared=false", "train.keep_checkpoints=3")
    output = root / "apart" / f"host{rank}"
    run_job(recipe, Job(output, apart, stop_at=8))
    shutil.copytree(output, root / "saved" / f"host{rank}")
    if rank == 1:
        shutil.rmtree(output / "checkpoints" / "step-00000008")
        Checkpoints(output / "checkpoints").set_back(4)
    run_job(recipe, Job(output, apart))

    lost = root / "lost" / f"host{rank}"
    if rank == 0:
        shutil.copytree(output, lost)
    with pytest.raises(Agreed, match=r"no checkpoint has the parts of all ranks.*rank 1: none"):
        run_job(recipe, Job(lost, (*apart, "phases.1.steps=2")))

    stored = (*apart, f"output.upload=file://{root}/store")
    kept = root / "kept" / f"host{rank}"
    run_job(recipe, Job(kept, stored, stop_at=8))
    if rank == 1:
        shutil.rmtree(kept)
    run_job(recipe, Job(kept, stored))


def test_hosts_without_a_shared_directory(root: Path) -> None:
    reference = records(root / "run", "train")
    expected = weights(root / "run")
    for name in ("apart", "kept"):
        host = root / name / "host0"
        assert records(host, "train") == reference
        assert all(tensor.equal(expected[key]) for key, tensor in weights(host).items())
    first, second = (root / "saved" / f"host{rank}/checkpoints" for rank in (0, 1))
    parts = [list_files(host / "step-00000008") for host in (first, second)]
    assert "model.safetensors" in parts[0]
    assert "model.safetensors" not in parts[1]
    for rank, names in enumerate(parts):
        engine = {name for name in names if "optim_states" in name}
        assert engine == {f"deepspeed/state/zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"}
        assert "deepspeed/state/mp_rank_00_model_states.pt" in names
    states = [read_state(host / "step-00000008") for host in (first, second)]
    assert [state.parts for state in states] == [(0,), (1,)]
    assert states[0].weights == states[1].weights

    events = records(root / "apart" / "host0", "event")
    assert [e["step"] for e in events if e["event"] == "resume"] == [4]
    events = records(root / "kept" / "host0", "event")
    assert [e["step"] for e in events if e["event"] == "resume"] == [8]
    fetched = root / "kept" / "host1" / "checkpoints" / "step-00000008"
    assert {*parts[0], *parts[1]} <= {*list_files(fetched)}


def test_hosts_agree_on_the_newest_step_that_all_have() -> None:
    def offer(newest: int | None, *usable: int) -> Offer:
        return Offer(newest, frozenset(usable))

    none = offer(None)
    assert choose_step({0: none, 2: none}, []) is None
    assert choose_step({0: none, 2: none}, [4, 8]) == 8
    assert choose_step({0: offer(12, 8, 12), 2: offer(8, 4, 8)}, []) == 8
    assert choose_step({0: offer(12, 12), 2: none}, [4, 8, 12, 16]) == 12
    assert choose_step({0: offer(4, 4)}, [4, 8]) == 4  # set back by hand
    with pytest.raises(InputError, match="steps by host: host of rank 0: 12; host of rank 2: 8"):
        choose_step({0: offer(12, 12), 2: offer(8, 8)}, [])


def test_damage_found_by_one_rank_stops_both(root: Path) -> None:
    problems = [(root / f"problem{rank}").read_text() for rank in (0, 1)]
    assert problems[0] == problems[1]
    assert "zero_pp_rank_1_mp_rank_00_optim_states.pt: damaged: wrong checksum" in problems[0]
    assert problems[0].endswith(f"echo step-00000004 > {root}/damaged/checkpoints/latest")


def damage_one_part(rank: int, recipe: Path, root: Path) -> None:
    from torch import distributed

    run_job(recipe, Job(root / "damaged", SHORT, stop_at=8))
    if rank == 0:
        part = "step-00000008/deepspeed/state/zero_pp_rank_1_mp_rank_00_optim_states.pt"
        path = root / "damaged" / "checkpoints" / part
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    distributed.barrier()
    with pytest.raises(Agreed) as caught:
        run_job(recipe, Job(root / "damaged", SHORT))
    (root / f"problem{rank}").write_text(str(caught.value))
