"""A corpus of English that every machine has: the documentation inside its Python files.

    python -m preprocessing.documentation documentation.jsonl --megabytes 10

Docstrings of the standard library and of the installed packages, and the language reference that
``help()`` shows, become one document a module: ``{"text": ..., "module": ...}`` a line, to be read
with ``corpus.form: jsonl``. Files are parsed, never imported. The order is fixed by the names: the
reference, the standard library, then the packages in turn, a module of each, so that a small
budget already spans many subjects.

No docstring appears twice in the corpus, whatever its indentation and its case: inherited
documentation would otherwise put training text into the held-out part.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import itertools
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocessing.storage import InputError, atomic_write

MAX_FILE_BYTES = 2_000_000
MIN_DOCUMENT_CHARACTERS = 200

_SKIPPED_DIRECTORIES = frozenset(
    ["__pycache__", "site-packages", "dist-packages", "test", "tests", "idle_test", "pydoc_data"]
)


def docstrings(source: bytes) -> list[str]:
    """The docstrings of a Python file in the order of its lines; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: list[str] = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            if text:
                found.append(text)
        if isinstance(node, ast.Module | ast.stmt | ast.excepthandler):
            waiting.extend(reversed([*ast.iter_child_nodes(node)]))
    return found


def reference_topics(source: bytes) -> list[tuple[str, str]]:
    """``(topic, text)`` of the language reference, from the source of ``pydoc_data.topics``."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            return sorted(ast.literal_eval(node.value).items())
    return []


def modules() -> Iterator[tuple[str, str, list[str]]]:
    """``(package, module, docstrings)`` of this Python, in the order of the corpus."""
    library = Path(sysconfig.get_path("stdlib"))
    topics = library / "pydoc_data" / "topics.py"
    if topics.is_file():
        for topic, text in reference_topics(topics.read_bytes()):
            yield "pydoc_data", f"pydoc_data.topics.{topic}", [text]
    for path in _python_files(library):
        yield "standard library", _module(library, path), docstrings(path.read_bytes())
    roots = {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")}
    packages = sorted(entry for root in roots if root.is_dir() for entry in root.iterdir())
    rounds = itertools.zip_longest(*(_python_files(package) for package in packages))
    for paths in rounds:
        for package, path in zip(packages, paths, strict=True):
            if path is not None:
                module = _module(package.parent, path)
                yield package.stem, module, docstrings(path.read_bytes())


def _python_files(path: Path) -> Iterator[Path]:
    """Python files at or below a path, sorted, without tests and generated giants."""
    if path.is_dir():
        if path.name not in _SKIPPED_DIRECTORIES and not path.is_symlink():
            for entry in sorted(path.iterdir()):
                yield from _python_files(entry)
    elif path.suffix == ".py" and path.is_file() and path.stat().st_size < MAX_FILE_BYTES:
        yield path


def _module(root: Path, path: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def documents(
    found: Iterable[tuple[str, str, list[str]]], max_bytes: int
) -> Iterator[tuple[str, str, str]]:
    """``(package, module, text)`` until ``max_bytes`` of text; no docstring appears twice."""
    seen: set[bytes] = set()
    num_bytes = 0
    for package, module, texts in found:
        if num_bytes >= max_bytes:
            return
        kept = []
        for text in map(inspect.cleandoc, texts):
            words = " ".join(text.lower().split())
            identity = hashlib.blake2b(words.encode(), digest_size=12).digest()
            if identity not in seen:
                seen.add(identity)
                kept.append(text)
        text = "\n".join(kept)
        if len(text) >= MIN_DOCUMENT_CHARACTERS:
            num_bytes += len(text.encode())
            yield package, module, text


def write_corpus(
    output: Path, found: Iterable[tuple[str, str, list[str]]], megabytes: float
) -> str:
    """Write documents to a JSON-lines file, whole or not at all; returns what was written."""
    count = num_bytes = 0
    packages = set()
    with atomic_write(output) as file:
        for package, module, text in documents(found, int(megabytes * 1e6)):
            row = {"text": text, "module": module}
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            count, num_bytes = count + 1, num_bytes + len(text.encode())
            packages.add(package)
    size = f"{num_bytes / 1e6:.1f} megabytes"
    return f"{output}: {count} documents, {size} of text, {len(packages)} packages"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocessing.documentation",
        description="Gather the documentation of this Python and its packages as JSON lines.",
        epilog="example: python -m preprocessing.documentation documentation.jsonl --megabytes 10",
    )
    parser.add_argument("output", type=Path, help="the JSON-lines file to write")
    parser.add_argument("--megabytes", type=float, default=10.0, help="of text (default: 10)")
    options = parser.parse_args(arguments)
    if options.megabytes <= 0:
        parser.error(f"--megabytes must be more than 0, not {options.megabytes:g}")
    try:
        print(write_corpus(options.output, modules(), options.megabytes))
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
