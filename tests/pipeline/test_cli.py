"""The ``lexmill`` command: what it prints, where, and which exit code it ends with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.schema import load
from pipeline import cli
from pipeline.settings import Run, decode_run


class Lexmill:
    """Runs the command in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object) -> int:
        self._capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def result(self) -> dict[str, object]:
        """The machine-readable last line, which is all there is."""
        (line,) = self.out.splitlines()
        result = json.loads(line)
        assert isinstance(result, dict)
        return result

    def refuses(self, *words: object) -> str:
        """Bad input: exit code 2, sentences on stderr, nothing on stdout, no traceback."""
        assert self(*words) == 2, self.err
        assert self.out == ""
        assert "Traceback" not in self.err
        return self.err


@pytest.fixture
def lexmill(capsys: pytest.CaptureFixture[str]) -> Lexmill:
    return Lexmill(capsys)


@pytest.fixture
def path(recipe: Callable[[], Run]) -> Path:
    """The recipe on disk; its stages have run, nothing is trained."""
    return Path(recipe().name)


@pytest.fixture
def output(tmp_path: Path) -> str:
    """An override: an output directory of this test's own."""
    return f"output.directory={tmp_path / 'run'}"


# -- help ------------------------------------------------------------------------------------------


def test_help_shows_the_commands_in_groups(lexmill: Lexmill) -> None:
    assert lexmill("--help") == 0

    groups = [line for line in lexmill.out.splitlines() if line.endswith(":") and line[0] != " "]
    assert groups == ["options:", "prepare:", "train:", "judge:", "share:"]
    for name, entry in cli.COMMANDS.items():
        assert f"  {name:<13}{entry.summary}" in lexmill.out


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_of_a_command_shows_an_example_of_it(lexmill: Lexmill, command: str) -> None:
    assert lexmill(command, "--help") == 0

    text = " ".join(lexmill.out.split())
    assert text.startswith(f"usage: lexmill {command} [-h]")
    assert f"example: lexmill {command} " in text


@pytest.mark.parametrize(
    "words", [[], ["injest", "RECIPE"], ["train"], ["run", "RECIPE", "--ranks=0"], ["import", "a"]]
)
def test_bad_command_line_shows_the_usage(lexmill: Lexmill, path: Path, words: list[str]) -> None:
    error = lexmill.refuses(*(str(path) if word == "RECIPE" else word for word in words))

    assert error.startswith("usage: lexmill ")


@pytest.mark.parametrize("words", [["--overwrit"], ["--checkpont=x", "seed=3"], ["--json", "one"]])
def test_stray_words_are_named(lexmill: Lexmill, path: Path, words: list[str]) -> None:
    stray = "one" if "one" in words else words[0]

    assert f"unrecognized arguments: {stray}\n" in lexmill.refuses("train", path, *words)


# -- configurations --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ingest", "run", "train", "evaluate", "export", "report"])
def test_printed_configuration_is_the_same_run(
    lexmill: Lexmill, path: Path, tmp_path: Path, command: str
) -> None:
    overrides = ["optimizer.weight_decay=0.02", f"output.directory={tmp_path / 'run'}"]
    assert lexmill(command, path, "--print-config", *overrides) == 0

    printed = tmp_path / "printed.yaml"
    printed.write_text(lexmill.out)
    assert decode_run(load(printed)).plain() == decode_run(load(path, overrides)).plain()
    assert not (tmp_path / "run").exists()


def test_overrides_stand_before_between_and_after_options(
    lexmill: Lexmill, path: Path, output: str
) -> None:
    overrides = ["phases.0.steps=5", output]
    orders = [
        [path, *overrides, "--print-config", "--debug"],
        [path, overrides[0], "--print-config", overrides[1], "--debug"],
        [path, "--print-config", overrides[0], "--debug", overrides[1]],
        ["--print-config", path, "--debug", *overrides],
    ]
    printed = set()
    for words in orders:
        assert lexmill("train", *words) == 0, lexmill.err
        printed.add(lexmill.out)

    assert len(printed) == 1
    assert "steps: 5" in printed.pop()


def test_errors_of_all_sections_come_at_once_and_nothing_starts(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    root = tmp_path / "nothing"
    for command in ("run", "train"):
        error = lexmill.refuses(
            command,
            path,
            f"corpus.directory={root}/data",
            f"output.directory={root}/run",
            "corpus.frm=text",
            "model.num_head=2",
            "phases.0.stps=3",
            "train.log_every=often",
            "examples.pairs.corruption.kind=shredded",
        )

        assert {
            "command line: corpus.frm: unknown key; did you mean 'form'?",
            "command line: model.num_head: unknown key; did you mean 'num_heads'?",
            "command line: phases.0.stps: unknown key; did you mean 'steps'?",
            'command line: train.log_every: Input should be a valid integer (given: "often")',
        } <= set(error.splitlines())
        assert "examples.pairs.corruption.kind: 'shredded' is none of: bidirectional," in error
        assert not root.exists()


def test_sections_that_do_not_fit_together_are_refused(lexmill: Lexmill, path: Path) -> None:
    error = lexmill.refuses("train", path, "model.next_sentence=false", "train.micro_batch_rows=5")

    assert "phases.0.batch_rows: 16 is not a multiple of train.micro_batch_rows (5)" in error
    assert "objectives: next_sentence: model bert does not predict it as it is set up" in error


def test_missing_configuration_gets_a_suggestion(lexmill: Lexmill) -> None:
    error = lexmill.refuses("run", "configs/quikstart.yaml")

    assert error == (
        "configs/quikstart.yaml: no such configuration file; did you mean 'quickstart.yaml'?\n"
    )


# -- data that is no good --------------------------------------------------------------------------


def copied(path: Path, tmp_path: Path) -> list[str]:
    """Overrides: the prepared data in a copy that may be damaged, and an output of its own."""
    shutil.copytree(path.parent / "data", tmp_path / "data")
    return [f"corpus.directory={tmp_path / 'data'}", f"output.directory={tmp_path / 'run'}"]


def test_missing_data_says_which_stage_makes_it(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    overrides = copied(path, tmp_path)
    shutil.rmtree(tmp_path / "data" / "examples")
    error = lexmill.refuses("train", path, *overrides)
    assert f"{tmp_path / 'data' / 'examples'}" in error
    assert "there is no finished data here" in error

    shutil.rmtree(tmp_path / "data")
    assert "tokenizer.json: is missing; run the tokenizer stage" in lexmill.refuses(
        "train", path, *overrides
    )
    assert not (tmp_path / "run").exists()


def test_corpus_too_small_for_one_step_says_so(
    lexmill: Lexmill, path: Path, output: str, tmp_path: Path
) -> None:
    error = lexmill.refuses("train", path, output, "phases.0.batch_rows=16000")

    assert "training rows are fewer than one step takes (phases.0.batch_rows: 16000)" in error
    assert not (tmp_path / "run").exists()


def test_shard_with_a_flipped_bit_is_named_at_the_start(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    overrides = copied(path, tmp_path)
    (shard,) = (tmp_path / "data" / "examples").glob("*/pairs-*/train/copy-000/part-00000.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)

    assert f"{shard}: wrong checksum" in lexmill.refuses("train", path, *overrides)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_examples_of_another_tokenizer_are_refused(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    overrides = copied(path, tmp_path)
    (tokenizer,) = (tmp_path / "data" / "tokenizers").glob("*/tokenizer.json")
    tokenizer.write_text(tokenizer.read_text() + "\n")

    error = lexmill.refuses("train", path, *overrides)
    assert f"made with another tokenizer than {tokenizer}; run the examples stage again" in error


@pytest.mark.parametrize("command", ["evaluate", "export", "report"])
def test_judging_before_training_is_refused(
    lexmill: Lexmill, path: Path, output: str, tmp_path: Path, command: str
) -> None:
    error = lexmill.refuses(command, path, output)

    assert error.startswith(f"{tmp_path / 'run'}: there is no ")
    assert "train first" in error
    assert len(error.splitlines()) == 1


def test_checkpoint_that_is_not_there_is_refused(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    for command in ("evaluate", "export"):
        error = lexmill.refuses(command, path, "--checkpoint", tmp_path / "nowhere")
        assert error == f"{tmp_path / 'nowhere'}: there is no such checkpoint\n"


# -- failures --------------------------------------------------------------------------------------


def test_traceback_only_where_it_is_asked_for(
    lexmill: Lexmill, path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Run) -> dict[str, object]:
        raise ZeroDivisionError("a defect")

    sentence = lexmill.refuses("evaluate", path, output)
    assert lexmill("evaluate", path, output, "--debug") == 2
    assert "Traceback" in lexmill.err
    assert sentence.strip() in lexmill.err

    monkeypatch.setattr("pipeline.commands.report_run", broken)
    assert lexmill("report", path, output, "--json") == 1
    assert lexmill.err == "failed: ZeroDivisionError: a defect (--debug shows where)\n"
    assert lexmill.result == {"error": "a defect"}
    assert lexmill("report", path, output, "--debug") == 1
    assert "Traceback" in lexmill.err
    assert lexmill.err.endswith("ZeroDivisionError: a defect\n")


def test_training_that_does_not_start_ends_the_run_alike(
    lexmill: Lexmill, path: Path, output: str, tmp_path: Path
) -> None:
    assert lexmill("run", path, output, "phases.0.batch_rows=16000", "--json") == 2, lexmill.err
    assert lexmill.result == {"error": "the training refused its input; see above"}

    (tmp_path / "run").write_text("a file where a directory should be")
    assert lexmill("run", path, output, "--json") == 1, lexmill.err
    assert "Not a directory" in lexmill.result["error"]


def test_debug_reaches_the_training(
    lexmill: Lexmill, path: Path, output: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def fail(words: tuple[str, ...], **settings: object) -> subprocess.CompletedProcess[str]:
        started.append(words)
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(subprocess, "run", fail)
    assert lexmill("run", path, output) == 1
    assert lexmill("run", path, output, "--debug") == 1
    assert "CommandFailed: the training ended with exit code 1" in lexmill.err

    assert started == [started[0], (*started[0], "--debug")]


# -- the whole road --------------------------------------------------------------------------------


def test_run_goes_the_whole_road_and_then_finds_everything_up_to_date(
    lexmill: Lexmill, path: Path, tmp_path: Path
) -> None:
    overrides = [
        f"corpus.directory={tmp_path / 'data'}",
        f"output.directory={tmp_path / 'run'}",
        "examples.packed.length=32",
        "phases.0.steps=3",
    ]
    assert lexmill("run", path, "--json", *overrides) == 0, lexmill.err

    stages = [line for line in lexmill.err.splitlines() if ": made: " in line]
    deduplicate = ["signatures", "matches", "deduplicate"]
    names = ["ingest", *deduplicate, "tokenizer", "tokenize", *3 * ["examples"]]
    assert [line.partition(":")[0] for line in stages] == names
    first = lexmill.result
    assert set(first) == {"evaluation", "export", "report"}
    assert (tmp_path / "run" / "report.html").read_text().startswith("<!")
    assert (tmp_path / "run" / "export" / "model.safetensors").exists()
    metrics = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000003" / "model.safetensors"
    written = checkpoint.stat().st_mtime_ns

    assert lexmill("run", path, "--json", *overrides) == 0, lexmill.err

    assert lexmill.err.count(": up to date: ") == len(names) + 1  # the training, too
    assert "evaluate: up to date" in lexmill.err
    assert ": made: " not in lexmill.err
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == metrics
    assert checkpoint.stat().st_mtime_ns == written
    assert lexmill.result == first


def test_json_of_every_judging_command_is_one_line(
    lexmill: Lexmill, path: Path, trained: Run
) -> None:
    assert lexmill("train", path, "--json") == 0
    checkpoint = trained.output.directory / "checkpoints" / "step-00000008"
    assert lexmill.result == {"steps": 8, "checkpoint": str(checkpoint)}
    assert lexmill("evaluate", path, "--json") == 0
    assert set(lexmill.result["sets"]) == {"heldout"}  # type: ignore[call-overload]
    assert lexmill("train", path, "--print-config", "--json") == 0
    assert json.loads(lexmill.out.splitlines()[-1]) == {"status": "printed"}
    assert lexmill("evaluate", path, "--json", "model.hidden_size=64") == 2
    assert "in the checkpoint, 64 in the model of" in str(lexmill.result["error"])


def test_export_comes_back_by_import_and_garbage_does_not(
    lexmill: Lexmill, path: Path, trained: Run, tmp_path: Path
) -> None:
    exported, imported = tmp_path / "exported", tmp_path / "imported"
    assert lexmill("export", path, f"export.directory={exported}", "--json") == 0, lexmill.err
    assert lexmill.result["directory"] == str(exported)
    assert lexmill("import", exported, imported, "--json") == 0, lexmill.err
    assert lexmill.result == {"directory": str(imported), "family": "bert"}
    assert sorted(path.name for path in imported.iterdir()) == [
        "config.yaml",
        "model.safetensors",
        "tokenizer",
    ]
    assert "stands already" in lexmill.refuses("import", exported, imported)

    for name, garbage in [
        ("model.safetensors", b"garbage"),
        ("config.json", b"garbage"),
        ("config.json", b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'),
    ]:
        damaged = tmp_path / "damaged"
        shutil.copytree(exported, damaged)
        (damaged / name).write_bytes(garbage)
        assert str(damaged) in lexmill.refuses("import", damaged, tmp_path / "never")
        assert not (tmp_path / "never").exists()
        shutil.rmtree(damaged)
    assert "there is no config.json here" in lexmill.refuses("import", tmp_path, tmp_path / "never")


def test_export_over_something_else_is_refused(
    lexmill: Lexmill, path: Path, trained: Run, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    assert "name a new folder" in lexmill.refuses("export", path, f"export.directory={tmp_path}")
    assert (tmp_path / "mine.txt").read_text() == "mine"
