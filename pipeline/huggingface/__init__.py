"""The Hugging Face form: the one place that knows its names, files and classes.

``export.py`` writes a folder and proves that it computes the same; ``importing.py`` reads one.
A family adds its file, which satisfies :class:`pipeline.huggingface.form.Form`, a case of
:func:`form_of` and a member of ``FORMS``. Transformers itself is imported only where a folder is
proved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_never

from pipeline.huggingface import bert, roberta
from pipeline.huggingface.form import Form
from pipeline.models import ModelConfig
from pipeline.models.bert import BertConfig
from pipeline.models.roberta import RobertaConfig

FORMS: tuple[Form[Any], ...] = (bert, roberta)


def form_of(config: ModelConfig) -> Form[Any]:
    """The form of a model's family."""
    match config:
        case BertConfig():
            return bert
        case RobertaConfig():
            return roberta
        case _:
            assert_never(config)


def config_from_huggingface(fields: Mapping[str, Any], tensors: Iterable[str]) -> ModelConfig:
    """The configuration of a folder, from its ``config.json`` and the names of its tensors.

    Raises:
        ValueError: an architecture or a setting that no family here has.
    """
    architectures = fields.get("architectures") or []
    for form in FORMS:
        if len(architectures) == 1 and architectures[0] in form.ARCHITECTURES:
            config: ModelConfig = form.config_from_huggingface(fields, tensors)
            return config
    known = (name for form in FORMS for name in form.ARCHITECTURES)
    raise ValueError(
        f"config.json: architectures {architectures} is not supported; "
        f"expected one of {', '.join(known)}"
    )
