import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from corpora import make_text, write_config, write_documents

from preprocessing.console import main


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_documents(tmp_path / "raw" / "a.txt", make_text(30))
    return write_config(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main([*words])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def failure(capsys: pytest.CaptureFixture[str], recipe: Path, *words: str) -> str:
    """A command that ends with 2, one sentence, no traceback, and a machine-readable line."""
    code, out, err = run(capsys, words[0], str(recipe), *words[1:], "--json")
    assert code == 2, err
    assert "Traceback" not in err
    assert len(out.splitlines()) == 1
    error = json.loads(out.splitlines()[-1])["error"]
    assert error
    return err


def test_stages_one_by_one(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    for stage in ("ingest", "deduplicate", "tokenizer", "tokenize", "examples"):
        code, out, err = run(capsys, stage, str(recipe), "--json")
        assert code == 0, err
        (line,) = out.splitlines()
        result = json.loads(line)
        assert result["stage"] == stage
        output = result["outputs"][-1]
        assert output["status"] == "made"
        assert output["totals"]["rows"] > 0
        assert Path(output["directory"]).is_dir()
        assert f"{stage}: made: " in err
    code, out, err = run(capsys, "examples", str(recipe))
    assert (code, out) == (0, "")
    assert "examples: up to date" in err


def test_overrides_stand_anywhere(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    for words in (
        ["ingest", str(recipe), "--print-config", "seed=7", "corpus.workers=2"],
        ["ingest", str(recipe), "seed=7", "--print-config", "corpus.workers=2"],
        ["ingest", "--print-config", str(recipe), "seed=7", "corpus.workers=2"],
    ):
        code, out, _ = run(capsys, *words)
        assert code == 0
        plain = yaml.safe_load(out)
        assert plain["seed"] == 7
        assert plain["corpus"]["workers"] == 2
    code, out, _ = run(capsys, "ingest", str(recipe), "--print-config", "--json")
    assert json.loads(out.splitlines()[-1]) == {"stage": "ingest", "status": "printed"}
    assert not (recipe.parent / "data").exists(), "printing does nothing"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["injest", "RECIPE"],
        ["ingest"],
        ["ingest", "RECIPE", "--wokers=2"],
        ["ingest", "RECIPE", "stray"],
        ["ingest", "RECIPE", "--overwrite", "stray"],
    ],
)
def test_bad_command_lines(
    capsys: pytest.CaptureFixture[str], recipe: Path, words: list[str]
) -> None:
    given = [str(recipe) if word == "RECIPE" else word for word in words]
    code, out, err = run(capsys, *given)
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert not (recipe.parent / "data").exists()


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ingest", "--help")
    assert code == 0
    assert "example: lexmill ingest configs/quickstart.yaml" in " ".join(out.split())


def test_bad_configuration(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    err = failure(capsys, recipe, "ingest", "corpus.frm=text", "seed=x", "examples.pairs.length=3")
    for part in ("corpus.frm", "did you mean 'form'", "seed: Input", "examples.pairs.length"):
        assert part in err
    err = failure(capsys, recipe.parent / "resipe.yaml", "ingest")
    assert "no such configuration file" in err


@pytest.mark.parametrize(
    ("content", "override", "expected"),
    [
        (b"", None, "no document for 'train'"),
        (b"\n\n \n", None, "no document for 'train'"),
        (b"\xff\xfe\x00", None, "1 invalid_bytes"),
        (b"not json\n[]\n", "corpus.form=jsonl", "2 invalid_json"),
        (b"one\n\ntwo\n\nbad \xff\n", None, "1 of 3 records were rejected"),
        (b"x", "corpus.form=parquet", "damaged_archive"),
        (b"one document alone\n", None, "no document is left for"),
    ],
)
def test_corpus_that_is_no_good(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    content: bytes,
    override: str | None,
    expected: str,
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_bytes(content)
    words = [override] if override else []
    recipe = write_config(tmp_path)
    if expected.startswith("no document is left"):
        assert run(capsys, "ingest", str(recipe), *words)[0] == 0
        err = failure(capsys, recipe, "deduplicate", *words)
    else:
        err = failure(capsys, recipe, "ingest", *words)
    assert expected in err


def test_corpus_without_a_single_token(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Control characters are text to the reader and nothing to the tokenizer."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_bytes(b"\x01\n\n\x02\n\n\x03\x04\n")
    recipe = write_config(tmp_path, corpus={"validation": {}})
    for stage in ("ingest", "deduplicate"):
        assert run(capsys, stage, str(recipe))[0] == 0
    code, _, err = run(capsys, "tokenizer", str(recipe))
    assert code in (0, 2), err
    if code == 0:
        err = failure(capsys, recipe, "tokenize")
    assert "not one document has a token" in err or "no characters" in err


def test_allowed_share_of_rejects_that_is_suggested_suffices(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "raw").mkdir()
    for good, bad in ((2, 1), (5, 1), (6, 1), (1, 2)):
        content = b"\n\n".join([b"a good line %d" % i for i in range(good)] + [b"\xff"] * bad)
        (tmp_path / "raw" / "a.txt").write_bytes(content)
        recipe = write_config(tmp_path)
        err = failure(capsys, recipe, "ingest", "--overwrite")
        suggested = err.split("allow it: ")[1].strip()
        code, _, err = run(capsys, "ingest", str(recipe), "--overwrite", suggested)
        assert code == 0, err
        assert f"{bad} invalid_bytes" in err


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ("nowhere/*.txt", "no such file"),
        ("nowhere.txt", "no such file"),
        ("gopher://host/file", "cannot be opened"),
        ("", ""),
    ],
)
def test_inputs_that_are_not_there(
    capsys: pytest.CaptureFixture[str],
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    inputs: str,
    expected: str,
) -> None:
    monkeypatch.chdir(recipe.parent)
    err = failure(capsys, recipe, "ingest", f"corpus.inputs=['{inputs}']")
    assert expected in err


def test_unreadable_input(recipe: Path) -> None:
    command = [sys.executable, "-m", "preprocessing", "ingest", str(recipe), "--json"]
    if os.geteuid() == 0:  # root reads whatever it likes, unless it gives that up
        if shutil.which("setpriv") is None:
            pytest.skip("needs setpriv, or a user who is not root")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    raw = recipe.parent / "raw" / "a.txt"
    raw.chmod(0)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "cannot be read: Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Permission denied" in json.loads(done.stdout)["error"]


def test_debug_shows_where(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    code, _, err = run(capsys, "deduplicate", str(recipe), "--debug")
    assert code == 2
    assert "Traceback" in err


def test_output_directory_that_is_a_file(capsys: pytest.CaptureFixture[str], recipe: Path) -> None:
    (recipe.parent / "data").write_text("a file")
    code, out, err = run(capsys, "ingest", str(recipe), "--json")
    assert code in (1, 2)
    assert "Traceback" not in err
    assert str(recipe.parent / "data") in err
    assert "error" in json.loads(out)


def test_machine_readable_line_in_any_locale(recipe: Path) -> None:
    (recipe.parent / "raw" / "東.txt").write_bytes(b"\xff")
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-m", "preprocessing", "ingest", str(recipe), "--json"],
        capture_output=True,
        env={
            **os.environ,
            "LC_ALL": "C",
            "PYTHONCOERCECLOCALE": "0",
            "PYTHONIOENCODING": "ascii",
        },
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "rejected" in json.loads(done.stdout)["error"]


def test_preprocessing_loads_no_torch() -> None:
    code = (
        "import sys, preprocessing.console\n"
        "heavy = {'torch', 'deepspeed', 'transformers', 'pipeline', 'wandb'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
