"""Functions compiled once by Numba and kept on the disk, wherever there is a place to keep them.

What is kept is made anew when the function's own file changes, and no other. A file whose functions
call compiled ones of another file therefore holds a digest of that file, ``COMPILED_WITH``, which
has to be brought up to date with it; a test sees to it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numba


def _ensure_a_cache() -> None:
    """Give Numba a private folder where it may write neither beside the sources nor at home.

    A folder of another user's making is not trusted, since what lies in it is executed.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    while not home.exists():
        home = home.parent
    here = Path(__file__).parent
    if "NUMBA_CACHE_DIR" in os.environ or os.access(here, os.W_OK) or os.access(home, os.W_OK):
        return
    folder = Path(tempfile.gettempdir()) / f"lexmill-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        folder = Path(tempfile.mkdtemp(prefix="lexmill-"))
    # The variable is for processes to come: Numba read it when it was imported.
    os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = str(folder)


_ensure_a_cache()

BYTES = numba.types.Array(numba.uint8, 1, "C", readonly=True)
PLACES = numba.types.Array(numba.int64, 1, "C", readonly=True)


def compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a function for these signatures as it is defined; a later process only loads it.

    The signatures are its types: the function itself need not repeat them.
    """
    return cast(
        Callable[[Callable[..., Any]], Callable[..., Any]],
        numba.njit(list(signatures), cache=True, error_model="numpy"),
    )
