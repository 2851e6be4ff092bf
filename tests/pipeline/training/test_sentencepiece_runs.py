"""A training on a sentencepiece vocabulary: saved, resumed, exported, imported, begun with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_run import write_corpus

from configs.schema import ConfigError, load
from pipeline import cli
from pipeline.evaluation.checkpoints import newest
from pipeline.opening import open_data
from pipeline.settings import decode_run
from pipeline.training.checkpoints.initial import same_vocabulary
from preprocessing.vocabulary import Vocabulary

RECIPE = """
seed: 3
corpus:
  directory: {root}/data
  inputs: [{root}/corpus.txt]
  validation: {{heldout: {{share: 0.1}}}}
tokenizer:
  kind: unigram
  vocab_size: 200
  special_tokens: ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
examples:
  sentences:
    length: 32
    layout: {{kind: full_sentences}}
    corruption: {{kind: masked}}
model: {{family: roberta, vocab_size: 200, hidden_size: 16, num_layers: 1, num_heads: 2,
         intermediate_size: 16, max_positions: 32}}
objectives: [{{kind: masked_lm}}]
optimizer: {{kind: adamw}}
schedule: {{kind: constant, warmup_steps: 1}}
phases: [{{examples: sentences, steps: 4, batch_rows: 8, learning_rate: 1e-3}}]
train: {{engine: local, micro_batch_rows: 8, save_every: 2, keep_checkpoints: 9, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 20, micro_batch_rows: 8}}
output: {{directory: {root}/run}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained for four steps."""
    root = tmp_path_factory.mktemp("sentencepiece")
    write_corpus(root / "corpus.txt")
    path = root / "recipe.yaml"
    path.write_text(RECIPE.format(root=root))
    lexmill("run", path)
    return path


def lexmill(*words: object) -> None:
    assert cli.main([str(word) for word in words]) == 0


def test_it_goes_on_and_comes_back(recipe: Path) -> None:
    root = recipe.parent
    ends = sorted((root / "run" / "checkpoints").glob("step-*"))
    assert sorted(path.name for path in (ends[-1] / "tokenizer").iterdir()) == ["tokenizer.model"]
    lexmill("train", recipe, f"output.directory={root}/again", "phases.0.steps=2")
    lexmill("train", recipe, f"output.directory={root}/again")
    whole, resumed = (load_file(ends[-1].parents[2] / name / "checkpoints" / ends[-1].name /
                                "model.safetensors") for name in ("run", "again"))  # fmt: skip
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())

    assert (root / "run" / "export" / "tokenizer.model").exists()
    lexmill("import", root / "run" / "export", root / "imported")
    vocabulary = Vocabulary.load(decode_run(load(recipe)).preparation.tokenizer_directory)
    for place in (ends[-1], root / "imported"):
        assert same_vocabulary(place, vocabulary)
        begun = root / f"begun-{place.name}"
        lexmill(
            "train",
            recipe,
            f"output.directory={begun}",
            f"train.init_from.checkpoint={place}",
            "phases.0.steps=2",
        )
        assert (begun / "checkpoints" / "step-00000002" / "tokenizer" / "tokenizer.model").exists()


def test_padding_that_does_not_fit_is_refused_before_and_after_preparing(recipe: Path) -> None:
    other = '["<pad>", "<s>", "</s>", "<unk>", "<mask>"]'
    with pytest.raises(ConfigError, match=r'pads with id 0.*: \["<s>", "<pad>"'):
        decode_run(load(recipe, [f"tokenizer.special_tokens={other}"]))
    bert = "model={family: bert, vocab_size: 200, next_sentence: false, max_positions: 32}"
    lexmill("tokenizer", recipe, f"tokenizer.special_tokens={other}", bert)
    run = decode_run(load(recipe, [f"tokenizer.special_tokens={other}", bert]))
    made = run.preparation.tokenizer_directory
    assert not same_vocabulary(newest(decode_run(load(recipe))), Vocabulary.load(made))
    adopted = f"tokenizer={{kind: existing, path: {made}, name: mine}}"
    lexmill("tokenizer", recipe, adopted)
    with pytest.raises(ConfigError, match="mine: tokenizer: pads with id 0"):
        open_data(decode_run(load(recipe, [adopted])))
