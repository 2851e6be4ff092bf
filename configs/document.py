"""YAML with places: every value remembers the file and line it came from.

Differences from plain YAML 1.1, all towards fewer surprises: ``1e-4`` is a float, ``on`` and
``yes`` are strings, dates stay strings, and a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]


class ConfigError(ValueError):
    """A configuration that cannot be used. ``problems`` holds one sentence for each fault."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Location:
    """A place in a file; ``line`` counts from 1 and is None where there is no line to name."""

    file: str
    line: int | None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class Node:
    """A YAML value with its place. Mappings and sequences keep their members in ``children``."""

    location: Location
    scalar: Value = None
    children: dict[str, Node] = field(default_factory=dict)
    kind: str = "mapping"

    def plain(self) -> Value:
        """The value without places."""
        if self.kind == "mapping":
            return {key: child.plain() for key, child in self.children.items()}
        if self.kind == "sequence":
            return [child.plain() for child in self.children.values()]
        return self.scalar


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, as far as it matters here."""


_Loader.yaml_implicit_resolvers = {}
_NUMBER = list("-+0123456789.")
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$", _NUMBER),
    (
        "float",
        r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$",
        _NUMBER,
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read_yaml(path: Path) -> Node:
    """Read one YAML document from a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text ({error.reason} at {error.start})"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    return _parse(text, str(path), mapping=True)


def parse_overrides(root: Node, overrides: Sequence[str]) -> None:
    """Apply ``key.path=value`` overrides to ``root`` in place; values are read as YAML.

    A number in a path is an index into a sequence that exists (``phases.0.steps=10``).
    """
    problems: list[str] = []
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.split(".")
        if not equals or not all(keys):
            problems.append(f"command line: '{override}': an override reads key.path=value")
            continue
        try:
            value = _parse(text, "command line", mapping=False)
        except ConfigError as error:
            problems += [f"{problem} (in '{override}')" for problem in error.problems]
            continue
        node = root
        for depth, key in enumerate(keys[:-1]):
            if key not in node.children and node.kind == "mapping":
                node.children[key] = Node(Location("command line", None))
            if key not in node.children:
                where = ".".join(keys[: depth + 1])
                problems.append(f"command line: {where}: there is no such item to override")
                break
            node = node.children[key]
            if node.kind == "scalar":  # a scalar gives way to the mapping the override needs
                node.kind, node.scalar = "mapping", None
        else:
            if node.kind == "sequence" and keys[-1] not in node.children:
                problems.append(f"command line: {path}: there is no such item to override")
                continue
            node.children[keys[-1]] = value
    if problems:
        raise ConfigError(problems)


def _parse(text: str, name: str, *, mapping: bool) -> Node:
    try:
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is None:
            if mapping:
                raise ConfigError([f"{name}: the file is empty"])
            return Node(Location(name, None), kind="scalar")
        problems: list[str] = []
        node = _convert(tree, loader, name, "", problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Location(name, mark.line + 1 if mark and mapping else None)
        raise ConfigError([f"{place}: not valid YAML: {error.problem}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{name}: not valid YAML: {error}"]) from None
    except RecursionError:
        raise ConfigError([f"{name}: nested too deeply, or an alias holds itself"]) from None
    if mapping and node.kind != "mapping":
        problems.append(f"{node.location}: a configuration is a mapping of sections")
    if problems:
        raise ConfigError(problems)
    return node


def _convert(tree: yaml.Node, loader: _Loader, name: str, path: str, problems: list[str]) -> Node:
    in_file = name != "command line"
    location = Location(name, tree.start_mark.line + 1 if in_file else None)
    if isinstance(tree, yaml.MappingNode):
        node = Node(location)
        for key_node, value_node in tree.value:
            line = Location(name, key_node.start_mark.line + 1 if in_file else None)
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(f"{line}: {path or 'top level'}: a key must be a single word")
                continue
            key = str(key_node.value)  # as written: 007 and true are names like others
            where = f"{path}.{key}" if path else key
            if key in node.children:
                first = node.children[key].location
                problems.append(f"{line}: {where}: given twice (first at {first})")
                continue
            child = _convert(value_node, loader, name, where, problems)
            child.location = line
            node.children[key] = child
        return node
    if isinstance(tree, yaml.SequenceNode):
        node = Node(location, kind="sequence")
        for index, item in enumerate(tree.value):
            node.children[str(index)] = _convert(item, loader, name, f"{path}.{index}", problems)
        return node
    try:
        scalar = loader.construct_object(tree)
    except (ValueError, yaml.YAMLError) as error:
        problems.append(f"{location}: {path}: {error}")
        scalar = None
    if not isinstance(scalar, None | bool | int | float | str):
        problems.append(f"{location}: {path}: a {tree.tag} cannot be used here; write it plainly")
        scalar = None
    return Node(location, scalar=scalar, kind="scalar")
