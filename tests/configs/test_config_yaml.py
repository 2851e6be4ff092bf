from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.schema import ConfigError, Document, load


def read(folder: Path, text: str, *overrides: str) -> Document:
    path = folder / "c.yaml"
    path.write_text(text)
    return load(path, overrides)


def value(folder: Path, text: str) -> Any:
    return read(folder, f"seed: {text}").raw()["seed"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("6E3", 6000.0),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("-12", -12),
        ("1_000_000", 1000000),
        ("0x1f", 31),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("2026-01-02", "2026-01-02"),
        ("12:30:45", "12:30:45"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e", "1e"),
        ("1-2", "1-2"),
        ("'1'", "1"),
        ("é 東", "é 東"),
        ("[1, [a, {b: 2}]]", [1, ["a", {"b": 2}]]),
    ],
)
def test_yaml_scalars_are_what_they_look_like(tmp_path: Path, text: str, expected: Any) -> None:
    got = value(tmp_path, text)
    assert got == expected
    assert type(got) is type(expected)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert value(folder, repr(number)) == number
    assert isinstance(value(folder, f"{number:e}"), float)


def test_keys_are_names_as_written(tmp_path: Path) -> None:
    keys = read(tmp_path, "model: {true: 1, 007: 2, null: 3, 1e3: 4, 2026-01-02: 5}").raw()
    assert keys == {"model": {"true": 1, "007": 2, "null": 3, "1e3": 4, "2026-01-02": 5}}


def test_aliases_are_copies(tmp_path: Path) -> None:
    raw = read(tmp_path, "model: &m {a: 1}\nexport: *m\n", "model.a=2").raw()
    assert raw["export"] in ({"a": 1}, {"a": 2})
    assert raw["model"] == {"a": 2}
    assert raw["export"] == {"a": 1}, "an override of one place reached another"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nmodel: {a: 1, a: 2}", "c.yaml:2: model.a: given twice (first at c.yaml:2)"),
        ("seed: 1\n\nseed: 2", "c.yaml:3: seed: given twice (first at c.yaml:1)"),
        ("model:\n  - {b: 1,\n     b: 2}", "c.yaml:3: model.0.b: given twice (first at c.yaml:2)"),
        ("seed: 1\n true: x: y", "c.yaml:2: not valid YAML: "),
        ("seed: [1", "c.yaml:1: not valid YAML: "),
        ("seed: 1\n---\nseed: 2", "c.yaml:2: not valid YAML: "),
        ("\tseed: 1", "c.yaml:1: not valid YAML: "),
        ("seed: \x01", "c.yaml: not valid YAML: "),
        ("seed: &x [*x]", "c.yaml: nested too deeply, or an alias holds itself"),
        ("seed: " + "[" * 5000, "c.yaml: nested too deeply"),
        ("seed: !!binary aGk=", "c.yaml:1: seed: a tag:yaml.org,2002:binary cannot be used here"),
        ("seed: !!timestamp 2026-01-02", "c.yaml:1: seed: a tag:yaml.org,2002:timestamp cannot"),
        ("seed: !!python/name:os.system x", "c.yaml:1: seed: could not determine a constructor"),
        ("seed: !!int x", "c.yaml:1: seed: invalid literal for int()"),
        ("seed: 1\n? [a]\n: 2", "c.yaml:2: top level: a key must be a single word"),
        ("model: {? {a: 1} : 2}", "c.yaml:1: model: a key must be a single word"),
        ("- seed", "c.yaml:1: a configuration is a mapping of sections"),
        ("seed", "c.yaml:1: a configuration is a mapping of sections"),
        ("", "c.yaml: the file is empty"),
        ("# nothing\n", "c.yaml: the file is empty"),
    ],
)
def test_bad_yaml_is_named_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert any(
        problem.replace(f"{tmp_path}/", "").startswith(expected)
        for problem in caught.value.problems
    ), caught.value.problems


def test_every_duplicate_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "seed: 1\nseed: 2\nseed: 3\nmodel: {a: 1, a: 2}")
    assert len(caught.value.problems) == 3


def test_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(ConfigError, match=r"c\.yaml: not UTF-8 text \(invalid start byte at 6\)"):
        load(tmp_path / "c.yaml")


def test_directory_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_missing_file_suggests_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"quikstart\.yaml: no such.*'quickstart\.yaml'"):
        load("quikstart.yaml")
    with pytest.raises(ConfigError, match="no such configuration file"):
        load("/nowhere/at/all.yaml")
    with pytest.raises(ConfigError, match="no such configuration file"):
        load("configs/../../pyproject.toml")


def test_shipped_recipes_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("quickstart.yaml").raw() == load("configs/quickstart.yaml").raw()
    (tmp_path / "quickstart.yaml").write_text("seed: 77")
    assert load("quickstart.yaml").raw() == {"seed": 77}, "the file at hand goes first"
