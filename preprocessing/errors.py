"""What goes wrong with data and with the places it lies in."""

from __future__ import annotations

import errno


class InputError(ValueError):
    """Data that cannot be used: the sentence says what, where and what to do."""


class UnreachableError(InputError):
    """A store or server that did not answer, or not in time, although it was asked repeatedly."""


class WorkerLostError(InputError):
    """A worker that ended in the middle of a task: killed, out of memory, or with its machine."""


_TRANSIENT = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.EREMOTEIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the share of it that this user has, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_transient(error: BaseException) -> bool:
    """Whether to try again makes sense: the network's fault or a lost worker, never the data's."""
    if isinstance(error, UnreachableError | WorkerLostError | TimeoutError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in _TRANSIENT
