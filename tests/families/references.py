"""What families are held against: other code that predicts from one sequence a row."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from pipeline.batch import IGNORED, Batch, Targets
from pipeline.huggingface import form_of
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models import ModelConfig, build_model

PADDING_IS_1 = TokenizerInfo(
    50, {}, {"pad_token": 1, "cls_token": 0, "sep_token": 2, "mask_token": 3}, lowercase=True
)
"""A small vocabulary that every family takes."""


class Reference(nn.Module, ABC):
    """Another implementation of a family, with random weights drawn by torch's generator."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits ``[targets, classes]`` at the targets of the batch, by their name.

        The rows hold one sequence each, from the first place on, and then padding; all targets
        are real.
        """

    @abstractmethod
    def ours(self) -> dict[str, Tensor]:
        """Its weights under the names of our ``state_dict``."""


class Theirs(Reference):
    """The class of transformers that a family is exported to.

    Attributes:
        model: theirs.
    """

    def __init__(self, config: ModelConfig, tokenizer: TokenizerInfo = PADDING_IS_1) -> None:
        super().__init__()
        self.config = config
        self.answers = form_of(config).answers(config)
        fields = form_of(config).config_to_huggingface(config, tokenizer)
        kind = getattr(transformers, fields["architectures"][0])
        self.model: Any = kind(kind.config_class(**fields))
        for module in self.model.modules():
            if isinstance(module, nn.Embedding):
                # Theirs never moves the padding's vector. Google's code does, and so do we:
                # corruptions may draw that token as a random one.
                module.padding_idx = None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Logits at the targets of the batch that their class has, too."""
        given = self.model(
            input_ids=batch.ids.long(),
            token_type_ids=batch.segment_ids.long(),
            attention_mask=(batch.sequence_ids > 0).long(),
        )
        made = {}
        for name, targets in batch.targets.items():
            if name in self.answers:
                answer = self.answers[name]
                rows, places = targets.indices // batch.ids.shape[1], targets.indices
                scores = getattr(given, answer.field)
                made[name] = scores[rows] if answer.per_sequence else scores.flatten(0, 1)[places]
        return made

    def ours(self) -> dict[str, Tensor]:
        """Its weights under the names of our ``state_dict``."""
        with torch.device("meta"):
            own = build_model(self.config).state_dict()
        shapes = {name: tensor.shape for name, tensor in own.items()}
        table = form_of(self.config).name_table(self.config)
        return table.from_huggingface(self.model.state_dict(), shapes)


def unpack(batch: Batch) -> Batch:
    """The same sequences in rows of their own, in the same order, with their real targets."""
    rows, length = batch.ids.shape
    inside = (batch.sequence_ids > 0).flatten()
    keys = torch.arange(rows).unsqueeze(1) * (length + 1) + batch.sequence_ids
    alone, owner = keys.flatten()[inside].unique(return_inverse=True)
    position = batch.positions.flatten()[inside].long()
    width = int(position.max()) + 1
    moved = torch.full((rows * length,), -1)
    moved[inside] = owner * width + position

    def spread(values: Tensor) -> Tensor:
        own = values.new_zeros(len(alone) * width)
        own[moved[inside]] = values.flatten()[inside]
        return own.view(len(alone), width)

    targets = {}
    for name, packed in batch.targets.items():
        real = packed.labels != IGNORED
        targets[name] = Targets(
            moved[packed.indices[real]],
            packed.labels[real],
            {
                key: moved[column[real].long()] if key.endswith("_place") else column[real]
                for key, column in packed.extra.items()
            },
        )
    return Batch(
        ids=spread(batch.ids),
        sequence_ids=spread(torch.ones_like(batch.sequence_ids)),
        positions=spread(batch.positions),
        segment_ids=spread(batch.segment_ids),
        targets=targets,
        channels={name: spread(values) for name, values in batch.channels.items()},
    )
