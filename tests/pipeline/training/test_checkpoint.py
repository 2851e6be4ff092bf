"""A checkpoint is whole or absent, and ``latest`` always names a whole one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import Job, records, run_job, weights
from snapshots import Snapshots

from configs.schema import ConfigError, load
from pipeline.settings import decode_run
from pipeline.training.checkpoints.checkpoint import Checkpoints, read_state, read_weights
from pipeline.training.checkpoints.integrity import find_damage, list_files
from pipeline.training.checkpoints.pickles import check_pickles
from pipeline.training.start import start_training
from preprocessing.storage import InputError

LOCAL = ("train.engine=local", "phases.1.steps=1")


@pytest.fixture(scope="module")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "run"
    run_job(recipe, Job(output, LOCAL))
    return output


def acknowledged(output: Path) -> int:
    """The last save that the run has told of."""
    return max(e["step"] for e in records(output, "event") if e["event"] == "checkpoint")


def newest_whole(output: Path) -> int:
    """The step of ``latest``, every file of which has been verified."""
    newest = Checkpoints(output / "checkpoints").latest()
    assert newest is not None
    state = read_state(newest)
    assert set(state.files) == {*list_files(newest)} - {"state.json"}
    assert find_damage(newest, state.files, state.files) is None
    return state.step


def test_kill_at_every_write_fsync_rename_and_removal_of_saving(
    recipe: Path, trained: Path, tmp_path: Path
) -> None:
    """A run saves at steps 4, 8, 12 and 13; it is copied at each moment of the last two saves.

    Every tenth copy is gone on from, and ends as the run that nobody killed.
    """
    output, copies = tmp_path / "run", tmp_path / "copies"
    run_job(recipe, Job(output, LOCAL, stop_at=9))
    with Snapshots(output, copies).everywhere():
        run_job(recipe, Job(output, LOCAL))

    taken = sorted(copies.iterdir())
    kinds = {path.name[5:] for path in taken}
    assert kinds >= {"half-write", "fsync", "before-rename", "after-rename", "removal"}
    assert kinds >= {"half-torch-save", "half-weights"}
    assert len(taken) > 60
    found = [(newest_whole(copy), acknowledged(copy)) for copy in taken]
    assert all(step >= told for step, told in found)
    assert {step for step, _ in found} == {8, 12, 13}
    for copy in taken[::10]:
        run_job(recipe, Job(copy, LOCAL))
        assert records(copy, "train") == records(trained, "train")
        assert not list((copy / "checkpoints").glob(".*writing"))


def test_what_a_name_promises_is_on_the_disk_before_the_name(recipe: Path, tmp_path: Path) -> None:
    """A power cut keeps what was fsynced: files and folders first, then each name in its folder."""
    output = tmp_path / "run"
    snapshots = Snapshots(output, tmp_path / "copies")
    with snapshots.everywhere():
        run_job(recipe, Job(output, LOCAL, stop_at=4))

    calls, writing = snapshots.calls, output / "checkpoints" / ".step-00000004.writing"
    target = output / "checkpoints" / "step-00000004"
    named = calls.index(("before-rename", target))
    forced = {path for what, path in calls[:named] if what == "fsync"}
    tree = {writing / path.relative_to(target) for path in target.rglob("*")} | {writing}
    assert {path for path in tree if path.name != "state.json"} <= forced
    assert any(path.name.startswith(".state.json.") for path in forced)
    pointed = calls.index(("before-rename", output / "checkpoints" / "latest"))
    assert ("fsync", output / "checkpoints") in calls[named:pointed]
    assert ("fsync", output / "checkpoints") in calls[pointed:]


def test_full_disk_while_saving_keeps_what_was_whole(recipe: Path, tmp_path: Path) -> None:
    """Torch reports a full disk as a RuntimeError of its own making."""
    output = tmp_path / "run"
    run_job(recipe, Job(output, LOCAL, stop_at=6))

    def fail(*arguments: Any) -> None:
        raise RuntimeError("unexpected pos 64 vs 0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(InputError, match=r"MiB free on the disk .*unexpected pos"):
            run_job(recipe, Job(output, LOCAL))

    assert not list((output / "checkpoints").glob(".*"))
    newest = Checkpoints(output / "checkpoints").latest()
    assert newest is not None
    assert read_state(newest).step == 4


def test_older_checkpoints_are_pruned_and_milestones_kept(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    settings = ("train.save_every=2", "train.keep_checkpoints=2", "train.milestone_every=6")
    run_job(recipe, Job(output, (*LOCAL, *settings)))

    kept = sorted(path.name for path in (output / "checkpoints").glob("step-*"))
    assert kept == ["step-00000006", "step-00000012", "step-00000013"]


def test_checkpoints_of_steps_that_were_undone_are_gone_with_the_next_save(
    recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_job(recipe, Job(output, (*LOCAL, "train.save_every=4", "train.keep_checkpoints=9")))
    checkpoints = Checkpoints(output / "checkpoints")
    assert checkpoints.steps() == [4, 8, 12, 13]
    shutil.copytree(checkpoints.path(4), output / "checkpoints" / "step-00000004.kept")
    checkpoints.set_back(4)
    run_job(recipe, Job(output, (*LOCAL, "train.save_every=100", "train.keep_checkpoints=9")))

    assert checkpoints.steps() == [4, 13]


def test_finished_training_is_left_alone(recipe: Path, trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    run_job(recipe, Job(trained, LOCAL))

    assert (trained / "metrics.jsonl").read_bytes() == before


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


def test_damaged_weights_are_named(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    newest = Checkpoints(copy / "checkpoints").latest()
    assert newest is not None
    flip(newest / "model.safetensors")

    with pytest.raises(InputError, match=r"model\.safetensors: wrong checksum"):
        read_weights(newest)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip, "damaged: wrong checksum"),
        (lambda path: os.truncate(path, path.stat().st_size - 3), "damaged: [0-9,]+ bytes of the"),
        (Path.unlink, "missing, though it was saved"),
    ],
    ids=["flipped", "truncated", "missing"],
)
def test_damage_to_any_file_is_named_with_the_way_back(
    recipe: Path, trained: Path, tmp_path: Path, damage: Callable[[Path], None], told: str
) -> None:
    """Nothing is loaded; the command that is told goes back to the newest whole checkpoint."""
    newest = "checkpoints/step-00000013"
    for name in list_files(trained / newest):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(trained, copy)
        damage(copy / newest / name)
        with pytest.raises(InputError) as caught:
            run_job(recipe, Job(copy, (*LOCAL, "phases.1.steps=2")))

        if name == "state.json":
            assert "state.json" in str(caught.value)
            continue
        first, second = str(caught.value).splitlines()
        assert re.search(rf"{newest}/{name}: {told}", first)
        assert "whole is step-00000012; to go back to it: " in second

    command = second.partition("to go back to it: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    run_job(recipe, Job(copy, LOCAL))
    assert newest_whole(copy) == 13
    assert records(copy, "train") == records(trained, "train")


def test_way_back_passes_over_what_is_damaged_too(recipe: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    run_job(recipe, Job(output, (*LOCAL, "train.keep_checkpoints=4")))
    checkpoints = Checkpoints(output / "checkpoints")
    for step in (8, 12, 13):
        flip(checkpoints.path(step) / "local" / "state.pt")

    assert "whole is step-00000004;" in checkpoints.way_back(checkpoints.path(13))
    flip(checkpoints.path(4) / "config.yaml")
    assert "none before it is whole" in checkpoints.way_back(checkpoints.path(13))


def test_latest_that_names_nothing_says_so(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "checkpoints" / "latest").write_text("step-00000099\n")

    with pytest.raises(InputError, match="names step-00000099, which is not there"):
        Checkpoints(copy / "checkpoints").latest()


def test_pickle_that_could_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2), "step": 3}, tmp_path / "good.pt")
    check_pickles(tmp_path)

    class Evil:
        def __reduce__(self) -> Any:
            return print, ("pwned",)

    torch.save({"weights": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt: refers to builtins\.print"):
        check_pickles(tmp_path)
    (tmp_path / "evil.pt").write_bytes(b"not a pickle")
    with pytest.raises(InputError, match=r"evil\.pt: damaged"):
        check_pickles(tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=4", "seed: 3 in the checkpoint, 4 now"),
        ("model.hidden_size=64", "model.hidden_size: 32 in the checkpoint, 64 now"),
        ("phases.0.batch_rows=32", "phases.0.batch_rows: 24 in the checkpoint, 32 now"),
    ],
)
def test_frozen_keys_are_refused_on_resume(
    recipe: Path, tmp_path: Path, override: str, message: str
) -> None:
    output = tmp_path / "run"
    run_job(recipe, Job(output, LOCAL, stop_at=5))
    with pytest.raises((ValueError, InputError)) as caught:
        run_job(recipe, Job(output, (*LOCAL, override)))

    if override.startswith("seed"):  # another seed is other data: not prepared
        assert "there is no finished data here" in str(caught.value)
    else:
        assert message in str(caught.value)


def test_recorded_keys_are_logged_and_future_phases_may_change(
    recipe: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    run_job(recipe, Job(output, LOCAL, stop_at=5))
    changed = ("phases.0.learning_rate=1e-3", "phases.1.batch_rows=8", "train.log_every=2")
    run_job(recipe, Job(output, (*LOCAL, *changed)))

    changes = [e["change"] for e in records(output, "event") if e["event"] == "change"]
    assert changes == [
        "phases.0.learning_rate: 0.006 in the checkpoint, 0.001 now",
        "phases.1.batch_rows: 16 in the checkpoint, 8 now",
    ]


def test_checkpoint_says_where_it_stands(recipe: Path, trained: Path) -> None:
    newest = Checkpoints(trained / "checkpoints").latest()
    assert newest is not None
    state = read_state(newest)

    assert (state.step, state.phase, state.position) == (13, 1, 16)
    assert set(weights(trained)) == set(read_weights(newest))
    assert {path.name for path in (newest / "tokenizer").iterdir()} == {
        "tokenizer.json",
        "vocab.txt",
    }
    resolved = decode_run(load(newest / "config.yaml"))
    assert (
        resolved.plain()
        == decode_run(load(recipe, [f"output.directory={trained}", *LOCAL])).plain()
    )


def test_start_refuses_what_cannot_train(recipe: Path, tmp_path: Path) -> None:
    def run(*overrides: str) -> None:
        start_training(
            decode_run(load(recipe, [f"output.directory={tmp_path}", *LOCAL, *overrides]))
        )

    with pytest.raises(InputError, match=r"training rows are fewer than one step takes"):
        run("phases.0.batch_rows=80000")
    with pytest.raises(ValueError, match=r"model\.vocab_size: 200 is less than the 300 pieces"):
        run("model.vocab_size=200")
    with pytest.raises(InputError, match="run the tokenizer stage"):
        run("tokenizer.name=other")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("zero_optimization.round_robin_gradients=true", "corrupt on another number of ranks"),
        ("zero_optimization.elastic_checkpoint=true", "one count of steps for all tensors"),
        ("zero_optimization.load_from_fp32_weights=false", "weights rounded to the training's"),
        ("zero_optimization.stage=2", "follows from zero_stage"),
        ("checkpoint.writer.type=fast", "options.checkpoint follows from output"),
        ("datastates_ckpt.enabled=true", "options.datastates_ckpt follows from output"),
    ],
)
def test_options_that_spoil_checkpoints_are_refused(
    recipe: Path, option: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        decode_run(load(recipe, [f"deepspeed.options.{option}"]))
    harmless = "deepspeed.options.zero_optimization.round_robin_gradients=false"
    decode_run(load(recipe, [harmless]))
