"""Strict configuration: YAML in, frozen typed dataclasses out, every error at once.

A configuration is one YAML document whose top level holds *sections*. The package that owns a
section describes it with :func:`config` classes and decodes it with :meth:`Document.decode`;
everybody else only knows that the section's name is a legal one.

    @config
    class Corpus:
        directory: Path
        share: float = 0.1

    document = load("recipe.yaml", overrides=["corpus.share=0.2"])
    corpus = document.decode("corpus", Corpus)

What is wrong is reported together, each with its full path, file, line and the nearest valid key:

    recipe.yaml:3: corpus.shrae: unknown key; did you mean 'share'?
    command line: corpus.share: Input should be a valid number (given: 'lots')
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

import pydantic
from pydantic_core import to_jsonable_python

from configs.document import ConfigError, Location, Node, Value, parse_overrides, read_yaml

__all__ = ["ConfigError", "Document", "config", "decode_sections", "digest", "load", "setting"]

T = TypeVar("T")

SECTIONS = (
    "seed",
    "corpus",
    "tokenizer",
    "examples",
    "model",
    "objectives",
    "optimizer",
    "schedule",
    "phases",
    "train",
    "deepspeed",
    "tracking",
    "evaluation",
    "export",
    "output",
)
"""The names of all sections. What a section means is decided by the package that owns it."""

ResumeClass = Literal["frozen", "recorded", "free"]
"""What a changed key means to a resumed run: refused, logged as a change, or of no consequence."""


def setting(
    default: Any = dataclasses.MISSING, *, resume: ResumeClass = "frozen", added: bool = False
) -> Any:
    """A field of a :func:`config` class with its resume class (``frozen`` where none is said).

    One that was ``added`` to a class whose digests name what is on disks is not mentioned by
    :func:`to_plain` while it holds its default, so that what was made before is found again.
    """
    metadata = {"resume": resume, "added": added}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
def config(cls: type[T]) -> type[T]:
    """Class decorator: a frozen, keyword-only dataclass that pydantic decodes strictly."""
    decorated: Any = pydantic.dataclasses.dataclass(
        frozen=True,
        kw_only=True,
        config=pydantic.ConfigDict(
            extra="forbid", strict=True, arbitrary_types_allowed=False, allow_inf_nan=False
        ),
    )(cls)
    return typing.cast(type[T], decorated)


@dataclass(frozen=True)
class Document:
    """A configuration as written: plain values, and where each of them stands."""

    name: str
    root: Node

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of the sections that are present, in the order of the file."""
        return tuple(self.root.children)

    def raw(self) -> dict[str, Value]:
        """The plain values, as YAML gives them."""
        value = self.root.plain()
        assert isinstance(value, dict)
        return value

    def digest(self, *sections: str) -> str:
        """Digest of the raw values of some sections (all where none is named)."""
        raw = self.raw()
        return digest({name: raw.get(name) for name in sections or sorted(raw)})

    def decode(self, section: str, kind: type[T] | Any) -> T:
        """One section as ``kind``; :class:`ConfigError` names everything that is wrong."""
        decoded, problems = self._try_decode(section, kind)
        if problems:
            raise ConfigError(problems)
        return typing.cast(T, decoded)

    def _try_decode(self, section: str, kind: Any) -> tuple[Any, list[str]]:
        node = self.root.children.get(section)
        if node is None:
            if _all_defaults(kind):
                node = Node(Location(self.name, None), children={})
            else:
                return None, [f"{self.name}: {section}: this section is missing"]
        try:
            text = json.dumps(node.plain(), ensure_ascii=False)
            return _adapter(kind).validate_json(text, strict=True), []
        except pydantic.ValidationError as error:
            rows = error.errors(include_url=False)
            return None, [_problem(section, node, kind, row) for row in rows]


def load(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file, and apply ``key.path=value`` overrides.

    Raises:
        ConfigError: unreadable file, bad YAML, duplicate keys, bad overrides.
    """
    path = find(path)
    root = read_yaml(path)
    parse_overrides(root, overrides)
    return Document(str(path), root)


def find(path: str | Path) -> Path:
    """A file as given, or a recipe of that name among the ones that travel with the package.

    ``configs/quickstart.yaml`` and ``quickstart.yaml`` both name the shipped recipe where no such
    file lies in the working directory.
    """
    path = Path(path)
    if path.exists():
        return path
    recipes = Path(__file__).parent
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    shipped = recipes.joinpath(*parts) if parts and not path.is_absolute() else path
    if shipped.is_file() and shipped.suffix == ".yaml":
        return shipped
    known = sorted(str(p.relative_to(recipes)) for p in recipes.rglob("*.yaml"))
    raise ConfigError([f"{path}: no such configuration file{_suggest(str(path), known)}"])


def decode_sections(document: Document, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Several sections at once, so that the errors of all of them are reported together.

    Raises:
        ConfigError: everything that is wrong with them, and sections that do not exist.
    """
    decoded: dict[str, Any] = {}
    problems = [
        f"{node.location}: {name}: unknown section{_suggest(name, SECTIONS)}"
        for name, node in document.root.children.items()
        if name not in SECTIONS
    ]
    for section, kind in kinds.items():
        decoded[section], errors = document._try_decode(section, kind)
        problems += errors
    if problems:
        raise ConfigError(problems)
    return decoded


def to_plain(value: Any) -> Any:
    """A decoded configuration back as plain JSON-like values, defaults spelled out."""
    return to_jsonable_python(_without_additions(value))


def _without_additions(value: Any) -> Any:
    """Configurations as mappings, without added fields that hold their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _without_additions(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if not (field.metadata.get("added") and getattr(value, field.name) == field.default)
        }
    if isinstance(value, Mapping):
        return {key: _without_additions(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_additions(item) for item in value]
    return value


def digest(value: Any) -> str:
    """A short stable digest (16 hex digits) of a configuration or of plain values."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def resume_classes(
    value: Any, prefix: str, inherited: ResumeClass = "frozen"
) -> dict[str, tuple[Any, ResumeClass]]:
    """Every leaf of a decoded configuration: dotted path -> (plain value, resume class)."""
    leaves: dict[str, tuple[Any, ResumeClass]] = {}
    _collect(value, prefix, inherited, leaves)
    return leaves


def _collect(
    value: Any, path: str, inherited: ResumeClass, leaves: dict[str, tuple[Any, ResumeClass]]
) -> None:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            own = getattr(value, field.name)
            if field.metadata.get("added") and own == field.default:
                continue  # as in to_plain: what was saved before it was added does not know it
            name = f"{path}.{field.name}" if path else field.name
            resume = field.metadata.get("resume", inherited)
            _collect(own, name, resume, leaves)
    elif isinstance(value, Mapping) and any(map(dataclasses.is_dataclass, value.values())):
        for key, item in value.items():
            _collect(item, f"{path}.{key}", inherited, leaves)
    elif isinstance(value, tuple) and any(dataclasses.is_dataclass(item) for item in value):
        for index, item in enumerate(value):
            _collect(item, f"{path}.{index}", inherited, leaves)
    else:
        leaves[path] = (to_plain(value), inherited)


# -- errors ------------------------------------------------------------------------------------


def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def _problem(section: str, node: Node, kind: Any, error: Any) -> str:
    path, place, expected = _resolve(section, node, kind, error["loc"])
    match error["type"]:
        case "unexpected_keyword_argument" | "extra_forbidden":
            message = f"unknown key{_suggest(path.rsplit('.', 1)[-1], _keys(expected))}"
        case "missing" | "missing_argument" | "missing_keyword_only_argument":
            message = "this key is missing"
        case "union_tag_invalid":
            tag, tags = error["ctx"]["tag"], error["ctx"]["expected_tags"].replace("'", "")
            path += f".{error['ctx']['discriminator'].strip(chr(39))}"
            close = difflib.get_close_matches(tag, tags.split(", "), n=1, cutoff=0.5)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            message = f"'{tag}' is none of: {tags}{hint}"
        case "union_tag_not_found":
            path += f".{error['ctx']['discriminator'].strip(chr(39))}"
            message = "this key is missing: it says which kind the others are of"
        case _:
            given = json.dumps(error["input"], ensure_ascii=False, default=str)
            given = given if len(given) <= 60 else given[:57] + "..."
            message = f"{error['msg'].removeprefix('Value error, ')} (given: {given})"
    return f"{place}: {path}: {message}"


def _resolve(section: str, node: Node, kind: Any, loc: Sequence[Any]) -> tuple[str, Location, Any]:
    """Follow pydantic's location: the dotted path, the nearest known line, the innermost type.

    Pydantic inserts the tags of unions into its location; a part that is no key of the document
    and names a member of a union is such a tag and is left out of the path.
    """
    path, place = section, node.location
    holder = kind
    last = len(loc) - 1
    for index, part in enumerate(loc):
        if part == "[key]":  # the key itself is wrong, and stands in the path already
            continue
        child = node.children.get(str(part))
        holder, is_tag = _member(holder, part)
        if is_tag and child is None:
            continue
        path += f".{part}"
        if child is not None:
            node, place = child, child.location
        if index < last:
            holder = _field_type(holder, part)
    return path, place, holder


def _member(kind: Any, part: Any) -> tuple[Any, bool]:
    """The member of a union that ``part`` is the tag of, if it is one."""
    kind = _bare(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for member in typing.get_args(kind):
            bare = _bare(member)
            tags = {
                tag
                for hint in (typing.get_type_hints(bare).values() if _is_config(bare) else ())
                if typing.get_origin(hint) is Literal
                for tag in typing.get_args(hint)
            }
            if part in tags or part == getattr(bare, "__name__", None):
                return bare, True
        configs = [m for m in map(_bare, typing.get_args(kind)) if _is_config(m)]
        if len(configs) == 1:
            return configs[0], False
    return kind, False


def _field_type(kind: Any, part: Any) -> Any:
    kind = _bare(kind)
    if _is_config(kind):
        return typing.get_type_hints(kind, include_extras=True).get(str(part))
    arguments = typing.get_args(kind)
    return arguments[-1 if isinstance(part, str) else 0] if arguments else None


def _bare(kind: Any) -> Any:
    while True:
        if typing.get_origin(kind) is Annotated:
            kind = typing.get_args(kind)[0]
        elif hasattr(kind, "__value__"):  # a ``type X = ...`` alias
            kind = kind.__value__
        else:
            return kind


def _is_config(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _keys(kind: Any) -> tuple[str, ...]:
    kind = _bare(kind)
    return tuple(f.name for f in dataclasses.fields(kind)) if _is_config(kind) else ()


def _all_defaults(kind: Any) -> bool:
    kind = _bare(kind)
    return _is_config(kind) and all(
        field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        for field in dataclasses.fields(kind)
    )


def _suggest(key: str, valid: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; valid keys: {', '.join(valid)}" if valid and len(valid) <= 24 else ""
