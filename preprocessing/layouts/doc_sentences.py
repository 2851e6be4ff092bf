"""Full sentences up to the length of a row, within a document: RoBERTa's DOC-SENTENCES.

From Liu et al. (2019, https://arxiv.org/abs/1907.11692), section 4.2. Rows at the end of a document
are short. The paper makes its batches larger to make up for that; here rows are packed instead.

    sentences of 4, 3 | 2, 5 tokens of two documents; length 12, frame cls_sep
    [CLS] 4 3 [SEP]   [CLS] 2 5 [SEP]

A sentence that is longer than a row is cut into parts that fill one, and a last part that is taken
for a sentence.
"""

from __future__ import annotations

from typing import Literal

from configs.schema import config
from preprocessing.layouts.base import Cut, Layout, Material
from preprocessing.layouts.full_sentences import gather_sentences


@config
class DocSentencesConfig(Layout):
    """Contiguous sentences of one document."""

    kind: Literal["doc_sentences"]

    def cut(self, material: Material) -> Cut:
        """As many whole sentences as ``length`` tokens hold, specials included."""
        return gather_sentences(material, crossing=False)
