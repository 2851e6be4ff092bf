"""A checkpoint is whole or absent, and ``latest`` always names a whole one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_run import Job, records, run_job, weights

import pipeline.training.checkpoint as checkpoint_module
import preprocessing.storage as storage
from configs.schema import load
from pipeline.settings import decode_run
from pipeline.training.checkpoint import Checkpoints, read_state, read_weights
from pipeline.training.pickles import check_pickles
from pipeline.training.start import start_training
from preprocessing.storage import InputError

LOCAL = ("train.engine=local", "phases.1.steps=1")


class PowerCut(BaseException):
    """Nothing after this line runs."""


@pytest.fixture(scope="module")
def trained(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "run"
    run_job(recipe, Job(output, LOCAL))
    return output


def inject(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Fail at the ``at``-th write, fsync or rename; returns how many there were."""
    calls = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise PowerCut
            return function(*arguments)

        return call

    for name in ("write_all", "synchronize", "rename"):
        monkeypatch.setattr(storage, name, counted(getattr(storage, name)))
    for name in ("synchronize", "rename"):
        monkeypatch.setattr(checkpoint_module, name, getattr(storage, name))
    return lambda: calls


def test_power_cut_at_every_write_fsync_and_rename_of_saving(
    recipe: Path, trained: Path, tmp_path: Path
) -> None:
    """A run saves at steps 4, 8, 12 and 13; the power fails at each call of the last two saves."""
    start = tmp_path / "start"
    run_job(recipe, Job(start, LOCAL, stop_at=9))
    reference = records(trained, "train")
    at, finished = 0, False
    while not finished:
        at += 1
        output = tmp_path / "run"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(start, output)
        with pytest.MonkeyPatch.context() as patch:
            # The tracker's own rewrite comes first; faults there are faults before any save.
            inject(patch, at)
            try:
                run_job(recipe, Job(output, LOCAL))
                finished = True
            except PowerCut:
                newest = Checkpoints(output / "checkpoints").latest()
                assert newest is not None
                assert read_state(newest).step >= 8
                read_weights(newest)
        run_job(recipe, Job(output, LOCAL))
        assert records(output, "train") == reference
        assert not list((output / "checkpoints").glob(".*writing"))
    assert at > 20


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


def test_finished_training_is_left_alone(recipe: Path, trained: Path) -> None:
    before = (trained / "metrics.jsonl").read_bytes()
    run_job(recipe, Job(trained, LOCAL))

    assert (trained / "metrics.jsonl").read_bytes() == before


def test_damaged_weights_are_named(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    newest = Checkpoints(copy / "checkpoints").latest()
    assert newest is not None
    path = newest / "model.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 1
    path.write_bytes(damaged)

    with pytest.raises(InputError, match=r"model\.safetensors: wrong checksum"):
        read_weights(newest)


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
        ("train.engine=deepspeed", "train.engine"),
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
