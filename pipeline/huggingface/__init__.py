"""The Hugging Face form: the one place that knows its names, files and classes.

``export.py`` writes a folder and proves that it computes the same; ``importing.py`` reads one.
A family adds its file, which satisfies :class:`pipeline.huggingface.form.Form`, a case of
:func:`form_of` and a member of ``FORMS`` or ``MARKED``. Transformers itself is imported only where
a folder is proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from pipeline.huggingface import albert, bert, ernie, macbert, roberta, spanbert
from pipeline.huggingface.form import FAMILY, Form
from pipeline.models import ModelConfig
from pipeline.models.albert import AlbertConfig
from pipeline.models.bert import BertConfig
from pipeline.models.ernie import ErnieConfig
from pipeline.models.macbert import MacBertConfig
from pipeline.models.roberta import RobertaConfig
from pipeline.models.spanbert import SpanBertConfig

FORMS: tuple[Form[Any], ...] = (albert, bert, ernie, roberta)
MARKED: Mapping[str, Form[Any]] = {"macbert": macbert, "spanbert": spanbert}
"""Families with the class of another one; their ``config.json`` says which they are."""


def form_of(config: ModelConfig) -> Form[Any]:
    """The form of a model's family."""
    match config:
        case AlbertConfig():
            return albert
        case BertConfig():
            return bert
        case ErnieConfig():
            return ernie
        case MacBertConfig():
            return macbert
        case RobertaConfig():
            return roberta
        case SpanBertConfig():
            return spanbert
        case _:
            assert_never(config)


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> ModelConfig:
    """The configuration of a folder, from its ``config.json`` and the names of its tensors.

    Raises:
        ValueError: an architecture or a setting that no family here has.
    """
    architectures = fields.get("architectures") or []
    if (family := fields.get(FAMILY)) is not None and family not in MARKED:
        raise ValueError(
            f"config.json: {FAMILY} is {family!r}; expected one of {', '.join(MARKED)}, or none"
        )
    for form in FORMS if family is None else (MARKED[family],):
        if len(architectures) == 1 and architectures[0] in form.ARCHITECTURES:
            config: ModelConfig = form.config_from_huggingface(fields, tensors)
            return config
    known = (name for form in FORMS for name in form.ARCHITECTURES)
    raise ValueError(
        f"config.json: architectures {architectures} is not supported; "
        f"expected one of {', '.join(known)}"
    )
