"""SpanBERT: BERT that fills in whole spans, also from nothing but the two tokens around them.

Paper: Joshi et al. 2019, https://arxiv.org/abs/1907.10529.
Reference: https://github.com/facebookresearch/SpanBERT (``pretraining/fairseq/models/pair_bert.py``
and ``criterions/spanbert_loss.py``).

Deliberate deviations:

- The boundary objective is the mean over the boundary targets of a whole step. The reference takes
  the mean on each GPU, and divides by the number of targets plus one, so as not to divide by zero.
- Spans beyond ``max_span_index`` tokens are asked for their first ones, as there, but no scores are
  computed for places that no token stands at.
- Weights are drawn from a normal distribution cut at two deviations; the reference's is not.
- Sequences may be packed: positions restart, and attention stays within each.

A single segment is trained. The table has two rows, as the published models', so that pairs can be
told apart in fine-tuning; the second one stays where it was drawn, but for weight decay.
"""

from __future__ import annotations

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, PositiveInt
from torch import Tensor

from configs.schema import config
from pipeline.batch import Targets
from pipeline.nn.activations import activation
from pipeline.nn.encoder import EncoderConfig, EncoderModel, layers, tables, token_head
from pipeline.nn.heads import SpanBoundaryHead
from pipeline.nn.scores import Scores
from preprocessing.corruption import Scheme, SpansConfig


@config
class SpanBertConfig(EncoderConfig):
    """The shape of a SpanBERT; the defaults are those of the published base model.

    Attributes:
        max_span_index: so many tokens of a span can be asked of its boundary; not less than that
            of the corruption ``spans``.
        span_index_size: width of the embedding of a token's index in its span.
    """

    family: Literal["spanbert"]
    num_segments: Annotated[int, Field(ge=2)] = 2
    max_span_index: PositiveInt = 15
    span_index_size: PositiveInt = 200

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the model predicts."""
        return ("masked_lm", "span_boundary")


class SpanBert(EncoderModel):
    """The encoder with its pretraining heads.

    Outputs: ``masked_lm`` ``[targets, vocab]``; ``span_boundary`` ``[targets, vocab]`` for tokens
    of spans, from targets at the token before the span, with the place of the token behind it
    (``right_place``) and the token's ``index`` in the span.
    """

    def __init__(self, config: SpanBertConfig) -> None:
        embeddings = tables(config, num_segments=config.num_segments)
        super().__init__(config, config.outputs, embeddings, layers(config))
        self._max_span_index = config.max_span_index
        self.heads["masked_lm"] = token_head(config, embeddings.word)
        self.heads["span_boundary"] = SpanBoundaryHead(
            embeddings.word,
            hidden_size=config.hidden_size,
            max_index=config.max_span_index,
            index_size=config.span_index_size,
            activation=activation(config.activation),
            layer_norm_eps=config.layer_norm_eps,
        )
        self.initialize()

    def misfit(self, scheme: Scheme) -> str | None:
        """Spans are asked for no more tokens than the head knows."""
        if isinstance(scheme, SpansConfig) and scheme.max_span_index > self._max_span_index:
            return (
                f"asks for {scheme.max_span_index} tokens of a span; it needs "
                f"model.max_span_index={scheme.max_span_index}"
            )
        return None

    def score(
        self, name: str, hidden: Float[Tensor, "rows length hidden"], targets: Targets
    ) -> Scores:
        """The scores of one output ``[targets, vocab]``."""
        if name != "span_boundary":
            return super().score(name, hidden, targets)
        right, index = targets.extra["right_place"], targets.extra["index"]
        scores: Scores = self.heads[name](hidden, targets.indices, right, index)
        return scores
