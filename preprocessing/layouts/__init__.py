"""Layouts, one file each: how documents are cut into training sequences.

A new layout is its file, with a configuration that is a :class:`Layout`, and a member here.
"""

from __future__ import annotations

from typing import Annotated

import pydantic

from preprocessing.layouts.base import Layout
from preprocessing.layouts.blocks import BlocksConfig
from preprocessing.layouts.dialogues import DialoguesConfig
from preprocessing.layouts.discourse_relation import DiscourseRelationConfig
from preprocessing.layouts.doc_sentences import DocSentencesConfig
from preprocessing.layouts.full_sentences import FullSentencesConfig
from preprocessing.layouts.pairs import PairsConfig
from preprocessing.layouts.relevance import RelevanceConfig
from preprocessing.layouts.sentence_distance import SentenceDistanceConfig
from preprocessing.layouts.sentence_order import SentenceOrderConfig
from preprocessing.layouts.sentence_reordering import SentenceReorderingConfig
from preprocessing.layouts.streams import StreamsConfig
from preprocessing.layouts.xlnet import XLNetConfig

__all__ = [
    "LABELLED",
    "BlocksConfig",
    "DialoguesConfig",
    "DiscourseRelationConfig",
    "DocSentencesConfig",
    "FullSentencesConfig",
    "Layout",
    "LayoutConfig",
    "PairsConfig",
    "RelevanceConfig",
    "SentenceDistanceConfig",
    "SentenceOrderConfig",
    "SentenceReorderingConfig",
    "StreamsConfig",
    "XLNetConfig",
]

LayoutConfig = Annotated[
    PairsConfig
    | BlocksConfig
    | DialoguesConfig
    | DiscourseRelationConfig
    | DocSentencesConfig
    | FullSentencesConfig
    | RelevanceConfig
    | SentenceDistanceConfig
    | SentenceOrderConfig
    | SentenceReorderingConfig
    | StreamsConfig
    | XLNetConfig,
    pydantic.Field(discriminator="kind"),
]

LABELLED = {
    "next_sentence": "pairs",
    "dialogue_response": "dialogues",
    "discourse_relation": "discourse_relation",
    "relevance": "relevance",
    "sentence_distance": "sentence_distance",
    "sentence_order": "sentence_order",
    "sentence_reordering": "sentence_reordering",
}
"""Objectives whose labels sequences get as they are cut, and the layout that gives them."""
