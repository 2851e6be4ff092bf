"""``lexmill convert``: a checkpoint that goes on anywhere, and one that is never half there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from safetensors.torch import load_file
from small_run import Job, largest_difference, records, run_jobs, weights

from pipeline.cli import main
from pipeline.training.checkpoints import convert as conversion
from pipeline.training.checkpoints.checkpoint import read_state
from pipeline.training.checkpoints.convert import convert
from pipeline.training.checkpoints.integrity import list_files, seal
from pipeline.training.checkpoints.state_files import open_state
from preprocessing.storage import InputError

STAGES = (0, 1, 2, 3)
LOCAL = "train.engine=local"
SAVED = Path("checkpoints") / "step-00000008"
MIXED = (
    "optimizer={kind: lamb, preset: paper}",
    "objectives=[{kind: masked_lm}, {kind: next_sentence, probability: 0.5}]",
)
"""A head that some steps leave alone, and a correction that counts the others."""
WITHOUT_DEEPSPEED = """
import os, sys
sys.modules["deepspeed"] = None
from configs.schema import load
from pipeline.settings import decode_run
from pipeline.training.start import start_training
start_training(decode_run(load(sys.argv[1], sys.argv[2:])))
"""


@pytest.fixture(scope="module")
def runs(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of every stage on two ranks after 8 of 20 steps, and the undisturbed run."""
    root = tmp_path_factory.mktemp("converted")
    jobs = [Job(root / f"two{stage}", (f"deepspeed.zero_stage={stage}",), 9) for stage in STAGES]
    mixed = [
        Job(root / "mixed", (*MIXED, f"deepspeed.zero_stage={stage}"), stop_at)
        for stage, stop_at in ((1, 5), (1, 10), (3, 14))
    ]
    run_jobs(recipe, [*jobs, *mixed], ranks=2)
    alone = [
        Job(root / "local", (LOCAL, "train.keep_checkpoints=9")),
        Job(root / "mixed", (*MIXED, LOCAL)),
        Job(root / "unmoved", (*MIXED, LOCAL)),
    ]
    run_jobs(recipe, alone, ranks=1)
    return root


def contents(directory: Path) -> object:
    return seal(directory, list_files(directory))


@pytest.mark.parametrize("stage", STAGES)
def test_state_of_every_stage_is_that_of_the_local_engine(runs: Path, stage: int) -> None:
    """Measured: 2.8e-7; key biases, whose gradients are zero but for rounding, 8e-14."""
    ours = runs / f"two{stage}" / SAVED
    theirs = runs / "local" / SAVED
    found, expected = (open_state(path, read_state(path)) for path in (ours, theirs))

    assert found.moments.keys() == expected.moments.keys() == expected.weights.keys()
    assert found.tensor_steps == expected.tensor_steps
    for key in ("exp_avg", "exp_avg_sq"):
        read, wanted = (
            {name: states[key].read() for name, states in state.moments.items()}
            for state in (found, expected)
        )
        largest = max(float((read[n] - wanted[n]).norm()) for n in wanted if "key.bias" in n)
        assert largest <= 1e-11
        relative = {n: tensor for n, tensor in wanted.items() if "key.bias" not in n}
        difference = largest_difference({n: read[n] for n in relative}, relative)
        print(f"stage {stage} {key}: {difference:.1e}, key biases {largest:.1e}")
        assert difference <= 1e-5
    assert found.counts == expected.counts


def test_steps_of_single_tensors_move_with_them(runs: Path) -> None:
    newest = Path("checkpoints") / "step-00000020" / "local" / "optimizer.json"
    moved, unmoved = (
        json.loads((runs / name / newest).read_text())["tensor_steps"]
        for name in ("mixed", "unmoved")
    )

    assert moved == unmoved
    assert 0 < moved["heads.next_sentence.classifier.weight"] < 20
    assert moved["embeddings.word.weight"] == 20
    assert largest_difference(weights(runs / "mixed"), weights(runs / "unmoved")) <= 1e-5


def test_converted_checkpoint_goes_on_without_deepspeed(recipe: Path, runs: Path) -> None:
    source = runs / "two3" / SAVED
    before = contents(source)
    portable = convert(source, runs / "portable")

    assert contents(source) == before
    assert {path.name for path in portable.iterdir()} == {
        "config.yaml", "model.safetensors", "portable", "state.json", "tokenizer"
    }  # fmt: skip
    overrides = [
        f"output.directory={runs / 'elsewhere'}",
        LOCAL,
        f"train.init_from={{checkpoint: {portable}, what: everything}}",
    ]
    command = [sys.executable, "-c", WITHOUT_DEEPSPEED, str(recipe), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert largest_difference(weights(runs / "elsewhere"), weights(runs / "local")) <= 1e-5
    assert [record["step"] for record in records(runs / "elsewhere", "train")] == [*range(9, 21)]


def test_command_converts_the_newest_checkpoint(
    recipe: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["convert", str(recipe), f"output.directory={runs / 'two1'}", LOCAL]

    assert main(words) == 0
    portable = runs / "two1" / "portable" / SAVED.name
    assert "init_from={checkpoint:" in capsys.readouterr().err
    state = read_state(portable)
    assert (state.engine, state.step) == ("portable", 8)
    moments = load_file(portable / "portable" / "embeddings.word.weight.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in moments.items()} == {
        "exp_avg": (320, 32),
        "exp_avg_sq": (320, 32),
    }
    assert main(words) == 2  # it stands already
    assert "stands already" in capsys.readouterr().err


def test_interrupted_conversion_leaves_nothing_that_looks_whole(runs: Path, tmp_path: Path) -> None:
    source = runs / "two2" / SAVED
    before = contents(source)
    for name in ("write_portable", "seal", "write_json", "rename"):
        with (
            mock.patch.object(conversion, name, side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            convert(source, tmp_path / "portable")
        assert not (tmp_path / "portable").exists()
    assert contents(source) == before
    assert contents(convert(source, tmp_path / "portable"))
    assert [path.name for path in tmp_path.iterdir()] == ["portable"]


def test_damaged_checkpoint_is_not_converted(runs: Path, tmp_path: Path) -> None:
    state = next((runs / "two0" / SAVED).rglob("*model_states.pt"))
    state.write_bytes(state.read_bytes()[:-10])

    with pytest.raises(InputError, match=r"model_states\.pt: damaged"):
        convert(runs / "two0" / SAVED, tmp_path / "portable")
    assert not any(tmp_path.iterdir())


def test_moments_of_other_tensors_are_not_taken(runs: Path) -> None:
    source = runs / "two1" / SAVED
    saved = open_state(source, read_state(source))
    name = "blocks.0.attention.query.weight"
    masters = {**saved.masters, name: saved.masters["blocks.1.attention.query.weight"]}
    wrong = type(saved)(saved.weights, masters, saved.moments, saved.counts)

    assert saved.weight(name, 5, 7).equal(saved.weights[name].flatten()[5:12])
    with pytest.raises(InputError, match=f"{name}: the optimizer's copy differs"):
        wrong.weight(name, 0, 10)
