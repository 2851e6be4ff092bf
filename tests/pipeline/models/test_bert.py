import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from configs.schema import ConfigError, load
from pipeline.batch import Batch, Targets
from pipeline.models import ModelConfig, build_model
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.scores import logits

TINY = BertConfig(
    family="bert", vocab_size=50, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32
)


def tiny() -> Bert:
    torch.manual_seed(0)
    return Bert(TINY)


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ({}, 110_106_428),
        (
            {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096},
            336_226_108,
        ),
    ],
)
def test_published_shapes_have_the_published_number_of_parameters(
    shape: dict[str, int], parameters: int
) -> None:
    with torch.device("meta"):
        model = build_model(BertConfig(family="bert", vocab_size=30522, **shape))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_logits_are_given_for_the_targets_of_the_batch_alone(batch: Batch) -> None:
    model = tiny()
    outputs = model(batch)
    assert {name: tuple(logits(values).shape) for name, values in outputs.items()} == {
        "masked_lm": (6, 50),
        "next_sentence": (4, 2),
    }
    masked_lm_only = replace(batch, targets={"masked_lm": batch.targets["masked_lm"]})
    assert list(model(masked_lm_only)) == ["masked_lm"]


def test_every_parameter_is_used_even_without_real_targets(batch: Batch) -> None:
    model = tiny()
    sum(logits(values).sum() for values in model(batch.weightless()).values()).backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert unused == []


def test_the_decoder_stays_tied_when_copied_moved_and_loaded() -> None:
    model = copy.deepcopy(tiny()).double()
    model.load_state_dict(tiny().state_dict())
    assert model.heads["masked_lm"].decoder.weight is model.embeddings.word.weight


def everywhere(batch: Batch) -> Batch:
    """The batch with every position as target."""
    places = torch.arange(batch.ids.numel())
    return replace(batch, targets={"masked_lm": Targets(places, torch.zeros_like(places))})


def logits_of_row(model: Bert, batch: Batch) -> torch.Tensor:
    return logits(model(everywhere(batch))["masked_lm"]).view(*batch.ids.shape, -1)[0]


@pytest.mark.parametrize("place", range(8))
def test_no_token_reaches_another_sequence(batch: Batch, place: int) -> None:
    model = tiny().eval()
    ids = batch.ids.clone()
    ids[0, place] = 33
    with torch.no_grad():
        before = logits_of_row(model, batch)
        after = logits_of_row(model, replace(batch, ids=ids))
    own = batch.sequence_ids[0] == batch.sequence_ids[0, place]
    assert torch.equal(before[~own], after[~own])
    # In fp32, an exact tie is as good as impossible: every position of the sequence moves.
    assert (before[own] != after[own]).any(-1).all()


def test_packed_sequences_get_the_logits_they_have_alone(batch: Batch) -> None:
    model = tiny().eval()
    second = slice(4, 7)
    alone = Batch(
        ids=batch.ids[:1, second],
        sequence_ids=torch.ones(1, 3, dtype=torch.long),
        positions=batch.positions[:1, second],
        segment_ids=batch.segment_ids[:1, second],
    )
    with torch.no_grad():
        packed = logits_of_row(model, batch)[second]
        single = logits_of_row(model, alone)
    torch.testing.assert_close(packed, single, atol=1e-6, rtol=0)  # measured: 3.0e-8


def test_dropout_follows_the_generator_and_stops_in_evaluation(batch: Batch) -> None:
    model = tiny()

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return logits(model(batch)["masked_lm"])

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    model.eval()
    assert torch.equal(drawn(1), drawn(2))


def test_embedding_dropout_zeroes_the_stated_share() -> None:
    torch.manual_seed(0)
    model = Bert(replace(TINY, hidden_size=64, dropout=0.3))
    zeros = torch.zeros(8, 128, dtype=torch.long)
    embedded = model.embeddings(zeros, zeros, zeros)
    # 65536 draws: the deviation of the mean is 0.0018.
    assert (embedded == 0).float().mean().item() == pytest.approx(0.3, abs=0.0075)


def test_without_next_sentence_there_is_no_such_head(batch: Batch) -> None:
    model = Bert(replace(TINY, next_sentence=False))
    assert model.outputs == ("masked_lm",)
    assert not [name for name, _ in model.named_parameters() if "next_sentence" in name]
    with pytest.raises(ValueError, match="no head for next_sentence; this model predicts masked_"):
        model(batch)


def test_a_recipe_decodes_strictly(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {family: bert, vocab_size: 50, hidden_size: 16, num_heads: 4}\n")
    config = load(recipe).decode("model", ModelConfig)
    assert config == BertConfig(family="bert", vocab_size=50, hidden_size=16, num_heads=4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_heads=5", "hidden_size 16 is no multiple of num_heads 5"),
        ("model.activation=swish", "'gelu', 'gelu_new' or 'relu'"),
        ("model.dropout=1.0", "less than 1"),
        ("model.num_layers=0", "greater than 0"),
        ("model.num_head=4", "did you mean 'num_heads'"),
        ("model.family=bort", "'bert'"),
    ],
)
def test_bad_settings_are_refused(tmp_path: Path, override: str, message: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: {family: bert, vocab_size: 50, hidden_size: 16, num_heads: 4}\n")
    with pytest.raises(ConfigError, match=message):
        load(recipe, [override]).decode("model", ModelConfig)
