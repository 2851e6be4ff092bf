"""What a family says of its Hugging Face form: the protocol that its file here meets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline.huggingface.names import NameTable
from pipeline.huggingface.tokenizer import TokenizerInfo

FAMILY = "lexmill_family"
"""The field of ``config.json`` that names a family whose class is another family's, too."""

Config_contra = TypeVar("Config_contra", contravariant=True)


@dataclass(frozen=True)
class Answer:
    """Where a model of theirs says what an output of ours says.

    Attributes:
        field: of its result.
        per_sequence: whether there is one for each sequence, and not one for each token.
    """

    field: str
    per_sequence: bool = False


class Form(Protocol[Config_contra]):
    """A family's module."""

    @property
    def ARCHITECTURES(self) -> tuple[str, ...]:
        """The classes of transformers that are written and read."""

    def config_to_huggingface(
        self, config: Config_contra, tokenizer: TokenizerInfo
    ) -> dict[str, Any]:
        """The contents of ``config.json``.

        Raises:
            ValueError: model and tokenizer do not fit together.
        """

    def config_from_huggingface(self, fields: Mapping[str, Any], tensors: Iterable[str]) -> Any:
        """The configuration of a folder, from its ``config.json`` and the names of its tensors.

        Raises:
            ValueError: a setting that this family does not have, or a shape that is not said.
        """

    def name_table(self, config: Config_contra) -> NameTable:
        """Our tensor names and theirs."""

    def answers(self, config: Config_contra) -> Mapping[str, Answer]:
        """Each output of ours that theirs has, too."""


def check_size(tokenizer: TokenizerInfo, vocab_size: int) -> None:
    """Refuse a tokenizer that has more tokens than a model has embeddings.

    Raises:
        ValueError: it has.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {vocab_size} "
            "embeddings; export with the tokenizer that the model was trained with"
        )


def check_fields(
    fields: Mapping[str, Any], said: Iterable[str], required: Mapping[str, Any]
) -> None:
    """Refuse a ``config.json`` that leaves a shape open or sets what a family does not have.

    Args:
        said: fields that must be there.
        required: fields that have a single value here, where they are there.

    Raises:
        ValueError: naming them.
    """
    missing = [name for name in said if name not in fields]
    if missing:
        raise ValueError(f"config.json: no {', '.join(missing)}")
    for name, value in required.items():
        if fields.get(name, value) != value:
            raise ValueError(
                f"config.json: {name} is {fields[name]!r}; only {value!r} is supported"
            )
