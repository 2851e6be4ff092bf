import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpora import EXAMPLES, make_text, prepare_config, run_stages, write_documents

from configs.schema import load
from preprocessing import records
from preprocessing.commands import STAGES
from preprocessing.console import main
from preprocessing.executors.slices import TaskSlice
from preprocessing.inspection.outputs import stage_directories
from preprocessing.settings import decode_preparation
from preprocessing.stage import run_slice
from preprocessing.status import stage_states
from preprocessing.storage import Manifest

Status = Callable[..., Any]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_documents(tmp_path / "raw" / "a.txt", make_text(60))
    prepare_config(tmp_path)
    return tmp_path / "recipe.yaml"


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Status:
    def ask(*words: object) -> Any:
        capsys.readouterr()
        code = main(["status", *map(str, words), "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return ask


def states(result: Any) -> dict[str, str]:
    return {stage["name"]: stage["state"] for stage in result["configurations"][0]["stages"]}


def test_stages_from_nothing_to_everything(recipe: Path, status: Status) -> None:
    assert set(states(status(recipe)).values()) == {"missing"}
    assert not (recipe.parent / "data").exists(), "asking makes nothing"
    preparation = decode_preparation(load(recipe))
    names = list(STAGES)
    for done, name in enumerate(names, 1):
        run_stages(preparation, (name,))
        behind = {
            made.name for other in names[:done] for make in STAGES[other][1](preparation)
            for made in [make()]
        }  # fmt: skip
        shown = states(status(recipe))
        for stage, state in shown.items():
            expected = "up to date" if stage.split()[0] in behind else "missing"
            assert state == expected, stage
    result = status(recipe)["configurations"][0]
    assert result["config"] == str(recipe)
    for stage in result["stages"]:
        totals = Manifest.read(Path(stage["directory"])).totals()
        assert (stage["rows"], stage["bytes"]) == (totals["rows"], totals["bytes"])
        assert stage["reasons"] == []


def test_directories_are_those_of_the_stages(recipe: Path) -> None:
    preparation = decode_preparation(load(recipe))
    run_stages(preparation)
    stages = [make() for _, (_, stages) in STAGES.items() for make in stages(preparation)]
    assert list(stage_directories(preparation).values()) == [stage.directory for stage in stages]


def test_what_was_made_differently_is_stale_and_says_why(recipe: Path, status: Status) -> None:
    run_stages(decode_preparation(load(recipe)))
    changed = status(recipe, "corpus.shard_bytes=8192")
    stages = {stage["name"]: stage for stage in changed["configurations"][0]["stages"]}
    assert stages["ingest"]["state"] == "stale"
    assert "shard_bytes: 4096 then, 8192 now" in stages["ingest"]["reasons"]
    assert stages["examples pairs"]["state"] == "missing", "its settings are part of its name"
    (recipe.parent / "raw" / "b.txt").write_text("One more document.\n")
    stages = {s["name"]: s for s in status(recipe)["configurations"][0]["stages"]}
    assert stages["ingest"]["reasons"] == ["the input train/b.txt is new"]
    assert stages["tokenize"]["state"] == "up to date"
    assert stages["tokenize"]["reasons"] == ["'ingest' before it is not up to date"]


def test_unfinished_damaged_and_cut_short(recipe: Path, status: Status) -> None:
    preparation = decode_preparation(load(recipe))
    (make,) = STAGES["ingest"][1](preparation)
    outcome = run_slice(make(), TaskSlice(0, 2), quiet=True)
    ingest = status(recipe)["configurations"][0]["stages"][0]
    tasks = len(make().plan())
    assert tasks > 1
    assert ingest["state"] == "unfinished"
    assert (ingest["tasks_done"], ingest["tasks"]) == (-(-tasks // 2), tasks)
    assert ingest["reasons"] == [f"{-(-tasks // 2)} of {tasks} tasks are recorded"]
    other = status(recipe, "corpus.shard_bytes=8192")["configurations"][0]["stages"][0]
    assert other["state"] == "stale"
    assert "another configuration" in other["reasons"][0]

    run_stages(preparation)
    directory = outcome.directory
    shard = directory / Manifest.read(directory).shards[0].name
    shard.write_bytes(shard.read_bytes()[:-1])
    assert states(status(recipe))["ingest"] == "unfinished"
    (directory / "manifest.json").write_text("{")
    result = status(recipe)
    assert states(result)["ingest"] == "damaged"
    assert "cannot be read" in result["configurations"][0]["stages"][0]["reasons"][0]


def test_raw_files_that_are_gone_are_the_reason(recipe: Path, status: Status) -> None:
    run_stages(decode_preparation(load(recipe)))
    (recipe.parent / "raw" / "a.txt").unlink()
    ingest = status(recipe)["configurations"][0]["stages"][0]
    assert ingest["state"] == "stale"
    assert "no such file" in ingest["reasons"][0]


def test_several_recipes_and_a_page_for_a_person(
    recipe: Path, status: Status, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stages(decode_preparation(load(recipe)))
    second = recipe.with_name("second.yaml")
    second.write_text(recipe.read_text())
    result = status(recipe, second, "seed=2")
    assert [one["config"] for one in result["configurations"]] == [str(recipe), str(second)]
    assert all(one["stages"][-1]["state"] == "missing" for one in result["configurations"])
    assert main(["status", str(recipe), str(second)]) == 0
    out = capsys.readouterr().out
    assert out.count("up to date") == 2 * 7
    assert "\x1b" not in out
    assert main(["status", str(recipe), "seed=2", "--print-config"]) == 0
    assert "seed: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nowhere.yaml"], "no such configuration file"),
        (["RECIPE", "corpus.frm=text"], "did you mean"),
        (["RECIPE", "--delete"], "give both"),
        (["RECIPE", "stray"], "no such configuration file"),
    ],
)
def test_bad_words(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    code = main(["status", *(str(recipe) if word == "RECIPE" else word for word in words)])
    assert code == 2
    assert expected in capsys.readouterr().err


def test_secrets_are_not_told(
    recipe: Path, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORE_SECRET", "hunter2hunter2")
    run_stages(decode_preparation(load(recipe)))
    raw = str(recipe.parent / "hunter2hunter2.txt")
    assert "hunter2" not in json.dumps(
        [
            stage["reasons"]
            for stage in status(recipe, f"corpus.inputs=['{raw}']")["configurations"][0]["stages"]
        ]
    )


def test_records_of_a_finished_stage_change_nothing(recipe: Path) -> None:
    preparation = decode_preparation(load(recipe))
    run_stages(preparation)
    before = stage_states(preparation)
    records.write_slices(preparation.documents_directory, 3)
    assert stage_states(preparation) == before
    assert list(EXAMPLES) == ["pairs"]
