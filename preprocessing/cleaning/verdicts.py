"""What the filters say of the documents of a batch: the first one that fails names the reason."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class Verdicts:
    """One entry a document.

    Attributes:
        kept: bool ``[documents]``, true until a filter fails.
        reasons: name of the filter that failed; ``""`` while none has.
        details: a sentence for a person.
    """

    def __init__(self, num_documents: int) -> None:
        self.kept: NDArray[np.bool_] = np.ones(num_documents, np.bool_)
        self.reasons = [""] * num_documents
        self.details = [""] * num_documents

    def reject(self, reason: str, failing: NDArray[np.bool_], detail: Callable[[int], str]) -> None:
        """Reject the documents that fail and did not before.

        Args:
            reason: name of the filter.
            failing: bool ``[documents]``.
            detail: what to say of the document at a place.
        """
        for index in np.flatnonzero(failing & self.kept).tolist():
            self.reasons[index] = reason
            self.details[index] = detail(index)
        self.kept &= ~failing
