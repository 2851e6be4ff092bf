"""Plain blocks: every document cut into pieces that fill a sequence, the last one shorter.

a document of 10 tokens, length 6:   [CLS] 0 1 2 3 [SEP]   [CLS] 4 5 6 7 [SEP]   [CLS] 8 9 [SEP]
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from configs.schema import config
from preprocessing.layouts.base import (
    Cut,
    Layout,
    Material,
    Spans,
    sequence_id,
    single_pieces,
)


@config
class BlocksConfig(Layout):
    """Single segments that never cross a document."""

    kind: Literal["blocks"]

    def cut(self, material: Material) -> Cut:
        """Blocks of at most ``length`` tokens, specials included."""
        size = material.room(1)
        rows = []
        for document in material.documents:
            num_tokens = len(material.store.ids(document))
            for index, start in enumerate(range(0, num_tokens, size)):
                stop = min(start + size, num_tokens)
                rows.append((sequence_id(document, index), document, start, stop))
        table = np.array(rows, dtype=np.int64).reshape(-1, 4)
        return single_pieces(
            table[:, 0], Spans(table[:, 1], table[:, 2], table[:, 3]), material.frame
        )
