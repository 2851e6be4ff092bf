"""ERNIE 1.0: BERT's encoder, which fills in words, phrases and entities and judges dialogues.

Paper: Sun et al. 2019, https://arxiv.org/abs/1904.09223.
Reference: https://github.com/PaddlePaddle/ERNIE, release r2.0 (``model/ernie.py``).

What makes it ERNIE is its data: ``units`` of three levels, one a phase, and ``dialogues``.

Deliberate deviations:

- ``next_sentence`` is 0 where the second segment follows the first and 1 where it is random, as in
  BERT and in transformers' ``ErnieForPreTraining``; the reference has them the other way round.
  Rows are labelled so before anything is trained, so an export turns nothing round. Who brings
  weights of the reference changes the two rows of ``heads.next_sentence.classifier``; the public
  conversions to transformers leave this head out.
- Dialogue roles are rows 2 and 3 of the segment table, behind the two segments of pairs. A token
  has either a segment or a role, so one table does what the paper's two do, and goes to
  transformers whole, with ``type_vocab_size`` 4.
- Real and fake dialogues are told by a head with a pooler of its own; the paper does not say what
  heads share. Transformers has no place for it.
- Sequences may be packed: positions restart, and attention stays within each.
"""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from configs.schema import config
from pipeline.nn.encoder import (
    EncoderConfig,
    EncoderModel,
    layers,
    sequence_head,
    tables,
    token_head,
)

_SEGMENTS_OF_DIALOGUES = 4


@config
class ErnieConfig(EncoderConfig):
    """The shape of an ERNIE 1.0; the defaults are those of the published Chinese model.

    Attributes:
        max_positions: the longest sequence, and the rows of the position table.
        num_segments: 2, or 4 with the two roles of dialogues.
        next_sentence: whether there is a head for ``next_sentence``.
        dialogue_response: whether there is one for ``dialogue_response``.
    """

    family: Literal["ernie"]
    vocab_size: PositiveInt = 18000
    max_positions: PositiveInt = 513
    num_segments: PositiveInt = 2
    activation: Literal["relu", "gelu"] = "relu"
    layer_norm_eps: PositiveFloat = 1e-5
    next_sentence: bool = True
    dialogue_response: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dialogue_response and self.num_segments < _SEGMENTS_OF_DIALOGUES:
            raise ValueError(
                f"dialogue_response needs num_segments: {_SEGMENTS_OF_DIALOGUES}, those of pairs "
                "and the two roles"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return (
            "masked_lm",
            *(("next_sentence",) if self.next_sentence else ()),
            *(("dialogue_response",) if self.dialogue_response else ()),
        )


class Ernie(EncoderModel):
    """The encoder with its pretraining heads.

    Outputs: ``masked_lm`` ``[targets, vocab]``; ``next_sentence`` and ``dialogue_response``
    ``[targets, 2]`` for targets at the first token of each sequence: class 0 where it is all of one
    piece, 1 where the second segment, or one of the turns, comes from elsewhere.
    """

    def __init__(self, config: ErnieConfig) -> None:
        embeddings = tables(config, num_segments=config.num_segments)
        super().__init__(config, config.outputs, embeddings, layers(config))
        self.heads["masked_lm"] = token_head(config, embeddings.word)
        for name in config.outputs[1:]:
            self.heads[name] = sequence_head(config)
        self.initialize()
