import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest

from configs.schema import (
    ConfigError,
    Document,
    config,
    decode_sections,
    digest,
    load,
    resume_classes,
    setting,
    to_plain,
)


@config
class Circle:
    kind: Literal["circle"]
    radius: float


@config
class Square:
    kind: Literal["square"]
    side: float
    corners: tuple[int, ...] = (1, 2)


Shape = Annotated[Circle | Square, pydantic.Field(discriminator="kind")]


@config
class Drawing:
    title: str
    shapes: tuple[Shape, ...] = ()
    by_name: Mapping[str, Shape] = setting({}, resume="recorded")
    width: Annotated[int, pydantic.Field(ge=1)] = 10
    scale: float = setting(1.0, resume="free")
    nested: Circle | None = None

    def __post_init__(self) -> None:
        if self.title == "cursed":
            raise ValueError("the title must not be cursed; choose another")


@config
class Plain:
    level: int = 3


def read(folder: Path, text: str, *overrides: str) -> Document:
    path = folder / "c.yaml"
    path.write_text(text)
    return load(path, overrides)


def problems(folder: Path, text: str, *overrides: str, kind: Any = Drawing) -> list[str]:
    """What is wrong with the section ``model``, the folder left out of the sentences."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides).decode("model", kind)
    return [problem.replace(f"{folder}/", "") for problem in caught.value.problems]


# -- strict decoding ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("titel: x", ["c.yaml:2: model.titel: unknown key; did you mean 'title'?", "missing"]),
        ("title: 5", ["c.yaml:2: model.title: Input should be a valid string (given: 5)"]),
        ("title: x\n  width: '5'", ["c.yaml:3: model.width: Input should be a valid integer"]),
        ("title: x\n  width: 5.0", ["c.yaml:3: model.width: Input should be a valid integer"]),
        ("title: x\n  width: true", ["c.yaml:3: model.width: Input should be a valid integer"]),
        ("title: x\n  width: 0", ["c.yaml:3: model.width: Input should be greater than or equal"]),
        ("title: x\n  scale: wide", ["c.yaml:3: model.scale: Input should be a valid number"]),
        ("title: x\n  scale: true", ["c.yaml:3: model.scale: Input should be a valid number"]),
        ("title: x\n  scale: 1e999", ["c.yaml:3: model.scale: Input should be a finite number"]),
        ("title: x\n  shapes: {}", ["c.yaml:3: model.shapes: Input should be a valid array"]),
        (
            "title: x\n  shapes:\n    - {kind: square, side: 1}\n    - {kind: circle, raduis: 2}",
            [
                "c.yaml:5: model.shapes.1.raduis: unknown key; did you mean 'radius'?",
                "c.yaml:5: model.shapes.1.radius: this key is missing",
            ],
        ),
        (
            "title: x\n  shapes: [{kind: square, side: 1, corners: [1, x]}]",
            ["c.yaml:3: model.shapes.0.corners.1: Input should be a valid integer"],
        ),
        (
            "title: x\n  shapes: [{kind: squar, side: 1}]",
            [
                "c.yaml:3: model.shapes.0.kind: 'squar' is none of: circle, square; "
                "did you mean 'square'?"
            ],
        ),
        (
            "title: x\n  shapes: [{side: 1}]",
            ["c.yaml:3: model.shapes.0.kind: this key is missing: it says which kind"],
        ),
        (
            "title: x\n  by_name:\n    square: {kind: circle, radius: 1, colour: 3}",
            ["c.yaml:4: model.by_name.square.colour: unknown key; valid keys: kind, radius"],
        ),
        (
            "title: x\n  nested: {kind: circle, radios: 1}",
            ["c.yaml:3: model.nested.radios: unknown key; did you mean 'radius'?", "missing"],
        ),
        ("title: cursed", ["c.yaml:1: model: the title must not be cursed; choose another"]),
        ("title: null", ["c.yaml:2: model.title: Input should be a valid string (given: null)"]),
    ],
)
def test_wrong_keys_and_types_are_named(tmp_path: Path, text: str, expected: list[str]) -> None:
    found = problems(tmp_path, f"model:\n  {text}\n")
    assert len(found) == len(expected)
    for wanted in expected:
        assert any(
            problem.startswith(wanted) or (wanted == "missing" and "is missing" in problem)
            for problem in found
        ), found


def test_a_key_of_a_wrong_form_is_named_once(tmp_path: Path) -> None:
    names = Annotated[str, pydantic.Field(pattern="^[a-z]+$")]
    (problem,) = problems(tmp_path, "model:\n  a b: 1\n", kind=dict[names, int])
    assert problem.startswith("c.yaml:2: model.a b: String should match pattern")


def test_sections_that_are_no_class_are_strict_too(tmp_path: Path) -> None:
    for text in ("'1'", "1.0", "true", "x", "[1]", "{a: 1}"):
        assert len(problems(tmp_path, f"model: {text}", kind=int)) == 1
    assert read(tmp_path, "model: 1").decode("model", int) == 1
    assert len(problems(tmp_path, "model: {a: '1'}", kind=dict[str, int])) == 1


def test_errors_of_all_sections_come_together(tmp_path: Path) -> None:
    document = read(tmp_path, "model: {titel: x}\nexport: {levle: 1}\nseed: y")
    with pytest.raises(ConfigError) as caught:
        decode_sections(document, {"model": Drawing, "export": Plain, "seed": int, "train": Circle})
    text = str(caught.value)
    for part in ("model.titel", "model.title", "export.levle", "seed:", "train: this section"):
        assert part in text
    assert len(caught.value.problems) == 5


def test_missing_section(tmp_path: Path) -> None:
    document = read(tmp_path, "seed: 1")
    assert document.decode("model", Plain) == Plain(level=3)
    with pytest.raises(ConfigError, match=r"model: this section is missing"):
        document.decode("model", Drawing)


def test_unknown_section_is_named_with_a_suggestion(tmp_path: Path) -> None:
    """Together with the faults of the sections that do exist."""
    document = read(tmp_path, "seed: one\nmodle: {}", "modle.a=1", "trian.b=2")
    with pytest.raises(ConfigError) as caught:
        decode_sections(document, {"seed": int})
    problems = "\n".join(caught.value.problems)
    assert "c.yaml:2: modle: unknown section; did you mean 'model'?" in problems
    assert "command line: trian: unknown section; did you mean 'train'?" in problems
    assert "c.yaml:1: seed: " in problems


def test_a_decoded_configuration_is_frozen_and_takes_keywords_only(tmp_path: Path) -> None:
    plain = Plain(level=1)
    with pytest.raises(AttributeError):
        plain.level = 2  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError):
        Plain(levle=1)  # type: ignore[call-arg]
    with pytest.raises((TypeError, pydantic.ValidationError)):
        Plain(2)  # type: ignore[misc]


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.a=1e-4", {"a": 1e-4, "list": [{"x": 1}, 2], "deep": {"b": 1}}),
        ("model.a=", {"a": None, "list": [{"x": 1}, 2], "deep": {"b": 1}}),
        ("model.a=x=y", {"a": "x=y", "list": [{"x": 1}, 2], "deep": {"b": 1}}),
        ("model.a=[1, {b: on}]", {"a": [1, {"b": "on"}], "list": [{"x": 1}, 2], "deep": {"b": 1}}),
        ("model.list.0.x=5", {"a": 0, "list": [{"x": 5}, 2], "deep": {"b": 1}}),
        ("model.list.1={y: 1}", {"a": 0, "list": [{"x": 1}, {"y": 1}], "deep": {"b": 1}}),
        ("model.deep.b.c=2", {"a": 0, "list": [{"x": 1}, 2], "deep": {"b": {"c": 2}}}),
        ("model.new.key=2", {"a": 0, "list": [{"x": 1}, 2], "deep": {"b": 1}, "new": {"key": 2}}),
        ("model=7", 7),
    ],
)
def test_overrides_reach_their_place(tmp_path: Path, override: str, expected: Any) -> None:
    document = read(tmp_path, "model: {a: 0, list: [{x: 1}, 2], deep: {b: 1}}", override)
    assert document.raw() == {"model": expected}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.a", "command line: 'model.a': an override reads key.path=value"),
        ("=1", "command line: '=1': an override reads key.path=value"),
        ("model..a=1", "an override reads key.path=value"),
        (".a=1", "an override reads key.path=value"),
        ("model.list.2=1", "command line: model.list.2: there is no such item to override"),
        ("model.list.-1=1", "command line: model.list.-1: there is no such item to override"),
        ("model.list.2.x=1", "command line: model.list.2: there is no such item to override"),
        ("model.list.x=1", "command line: model.list.x: there is no such item to override"),
        ("model.a=[1", "command line: not valid YAML"),
        ("model.a={b: 1, b: 2}", "command line: b: given twice"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "model: {a: 0, list: [{x: 1}, 2]}", override)
    assert expected in str(caught.value)


def test_all_bad_overrides_come_together_and_good_ones_show_their_origin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "model: [1]", "model.5=1", "x", "model.a=2")
    assert len(caught.value.problems) == 3
    (problem,) = problems(tmp_path, "model: {title: x}", "model.width=wide")
    assert problem.startswith("command line: model.width: Input should be a valid integer")


def test_the_last_override_wins(tmp_path: Path) -> None:
    assert read(tmp_path, "seed: 1", "seed=2", "seed=3").raw() == {"seed": 3}


# -- what is made of it ------------------------------------------------------------------------


def test_resume_classes_of_every_leaf() -> None:
    drawing = Drawing(
        title="x",
        shapes=(Circle(kind="circle", radius=1.0),),
        by_name={"a": Square(kind="square", side=2.0)},
    )
    assert resume_classes(drawing, "model") == {
        "model.title": ("x", "frozen"),
        "model.shapes.0.kind": ("circle", "frozen"),
        "model.shapes.0.radius": (1.0, "frozen"),
        "model.by_name.a.kind": ("square", "recorded"),
        "model.by_name.a.side": (2.0, "recorded"),
        "model.by_name.a.corners": ([1, 2], "recorded"),
        "model.width": (10, "frozen"),
        "model.scale": (1.0, "free"),
        "model.nested": (None, "frozen"),
    }
    assert resume_classes(Plain(), "a", "free") == {"a.level": (3, "free")}


def test_plain_values_decode_to_the_same_again(tmp_path: Path) -> None:
    text = "model: {title: x, shapes: [{kind: square, side: 1}], nested: {kind: circle, radius: 2}}"
    drawing = read(tmp_path, text).decode("model", Drawing)
    again = read(tmp_path, f"model: {json.dumps(to_plain(drawing))}")
    assert again.decode("model", Drawing) == drawing


def test_digest_is_pinned_and_sees_values_not_their_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [1.5, None, "é"]}) == digest({"b": [1.5, None, "é"], "a": 1})
    assert digest({"a": 1}) != digest({"a": "1"})
    assert digest(Plain(level=3)) == digest({"level": 3})
    assert digest({"a": 1, "b": [1.5, None, "é"]}) == "fde1f90657345488"
    whole, other = read(tmp_path, "seed: 1\nmodel: 2"), read(tmp_path, "model: 2\nseed: 3")
    assert whole.digest("model") == other.digest("model")
    assert whole.digest() != other.digest()
