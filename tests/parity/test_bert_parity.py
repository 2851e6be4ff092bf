from dataclasses import replace

import pytest
import torch
import transformers

from pipeline.huggingface.bert import config_to_huggingface, name_table
from pipeline.huggingface.proof import make_probe
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.scores import logits

TINY = BertConfig(
    family="bert", vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32
)
TANH = BertConfig(
    family="bert",
    vocab_size=50,
    hidden_size=16,
    num_layers=3,
    num_heads=2,
    intermediate_size=24,
    max_positions=40,
    num_segments=3,
    activation="gelu_new",
    layer_norm_eps=1e-6,
)
BASE_OF_TWO_LAYERS = BertConfig(family="bert", vocab_size=3000, num_layers=2)


def theirs_and_ours(config: BertConfig, perturb):
    """Random weights in transformers' class, carried over to ours."""
    fields = config_to_huggingface(config, TokenizerInfo(50, {}, {"pad_token": 0}, True))
    torch.manual_seed(0)
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**fields)).eval()
    perturb(theirs.parameters(), seed=1, std=1.6 / config.hidden_size)
    ours = Bert(config).eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(name_table(config).from_huggingface(theirs.state_dict(), shapes))
    return theirs, ours


@pytest.mark.parametrize("config", [TINY, TANH, BASE_OF_TWO_LAYERS], ids=["tiny", "tanh", "base"])
def test_packed_logits_are_those_of_transformers_unpacked(config: BertConfig, perturb) -> None:
    theirs, ours = theirs_and_ours(config, perturb)
    probe = make_probe(config.vocab_size, config.max_positions, config.num_segments)
    with torch.no_grad():
        asked = {"masked_lm": probe.everywhere, "next_sentence": probe.firsts}
        outputs = ours(replace(probe.batch, targets=asked))
        tokens, classes = [], []
        for ids, segments, length in zip(probe.ids, probe.segment_ids, probe.lengths, strict=True):
            given = theirs(
                input_ids=ids[None],
                token_type_ids=segments[None],
                attention_mask=(torch.arange(len(ids)) < length).long()[None],
            )
            tokens.append(given.prediction_logits[0, :length])
            classes.append(given.seq_relationship_logits)
    masked_lm, next_sentence = torch.cat(tokens), torch.cat(classes)
    # Measured: 3.6e-7 tiny, 4.2e-7 tanh, 1.2e-6 base.
    torch.testing.assert_close(logits(outputs["masked_lm"]), masked_lm, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs["next_sentence"], next_sentence, atol=1e-5, rtol=0)


def test_parameters_are_as_many_as_in_transformers(perturb) -> None:
    theirs, ours = theirs_and_ours(TANH, perturb)
    counts = [sum(p.numel() for p in model.parameters()) for model in (theirs, ours)]
    assert counts[0] == counts[1]
