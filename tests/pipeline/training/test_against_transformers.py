"""Training here follows the loss curve of transformers: the same one without dropout, and with it
one that chance alone tells apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from configs.schema import load
from pipeline.batch import IGNORED, Batch
from pipeline.data import RowSource, to_batch
from pipeline.huggingface.bert import config_to_huggingface, name_table
from pipeline.huggingface.tokenizer import TokenizerInfo
from pipeline.models.bert import Bert, BertConfig
from pipeline.objectives.masked_lm import MaskedLM, MaskedLMConfig
from pipeline.objectives.task import PretrainingTask
from pipeline.optim import AdamWConfig, build_optimizer
from pipeline.sections import Fp16Config
from pipeline.training.local_engine import LocalEngine
from preprocessing.commands import run_preparation
from preprocessing.documentation import modules, write_corpus
from preprocessing.settings import decode_preparation

pytestmark = pytest.mark.slow

STEPS, ROWS, LENGTH, VOCAB = 200, 16, 64, 2048
RATE, WARMUP = 2e-3, 20
ADAMW = AdamWConfig(kind="adamw")
CONFIG = BertConfig(
    family="bert",
    vocab_size=VOCAB,
    hidden_size=128,
    num_layers=2,
    num_heads=4,
    intermediate_size=512,
    max_positions=LENGTH,
    dropout=0.0,
    attention_dropout=0.0,
    next_sentence=False,
)
RECIPE = """
seed: 5
corpus: {{directory: {root}/data, inputs: [{root}/text.jsonl], form: jsonl}}
tokenizer: {{kind: wordpiece, vocab_size: 2048}}
examples:
  rows: {{length: 64, layout: {{kind: blocks}}, corruption: {{kind: masked}}}}
"""


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> list[Batch]:
    """Documentation, a sequence a row."""
    root = tmp_path_factory.mktemp("documentation")
    write_corpus(root / "text.jsonl", modules(), 1.0)
    recipe = root / "recipe.yaml"
    recipe.write_text(RECIPE.format(root=root))
    preparation = decode_preparation(load(recipe))
    for _ in run_preparation(preparation):
        pass
    directory = preparation.examples_directory("rows")
    corruption = preparation.examples["rows"].corruption
    rows = RowSource(directory, "train", corruption, preparation.seed, 0).open()
    assert rows.num_rows >= STEPS * ROWS, "each row is seen once"
    return [
        to_batch(rows.arrays(range(start, start + ROWS))) for start in range(0, STEPS * ROWS, ROWS)
    ]


def rate(step: int) -> float:
    return RATE * min(1, (step + 1) / WARMUP) * (1 - step / STEPS)


def peer_of(config: BertConfig) -> transformers.BertForMaskedLM:
    """Their model, and the initial weights of all trainings."""
    fields = config_to_huggingface(config, TokenizerInfo(VOCAB, {}, {"pad_token": 0}, True))
    torch.manual_seed(7)
    return transformers.BertForMaskedLM(transformers.BertConfig(**fields)).train()


def train_ours(config: BertConfig, batches: list[Batch], seed: int) -> list[float]:
    """By the engine; the masked tokens' mean loss of each step."""
    model = Bert(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    begin = name_table(config).from_huggingface(peer_of(config).state_dict(), shapes)
    model.load_state_dict(begin)
    task = PretrainingTask(model, {"masked_lm": MaskedLM(MaskedLMConfig(kind="masked_lm"))})
    engine = LocalEngine(
        task,
        build_optimizer(ADAMW, model),
        precision="fp32",
        gradient_clipping=1.0,
        fp16=Fp16Config(),
    )
    torch.manual_seed(seed)
    losses = []
    for step, batch in enumerate(batches):
        count = (batch.targets["masked_lm"].labels != IGNORED).sum().float().unsqueeze(0)
        total = engine.backward(batch, count).statistics[0, 0]
        assert engine.step(rate(step)).applied
        losses.append(float(total / count[0]))
    return losses


def labels_of(batch: Batch) -> Tensor:
    """A label at each token, as transformers wants them."""
    own = batch.targets["masked_lm"]
    real = own.labels != IGNORED
    labels = torch.full((batch.ids.numel(),), IGNORED)
    labels[own.indices[real]] = own.labels[real].long()
    return labels.view(batch.ids.shape)


def train_theirs(config: BertConfig, batches: list[Batch], seed: int) -> list[float]:
    """By plain torch."""
    model = peer_of(config)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": ADAMW.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=ADAMW.betas,
        eps=ADAMW.eps,
    )
    torch.manual_seed(seed)
    losses = []
    for step, batch in enumerate(batches):
        loss = model(
            input_ids=batch.ids.long(),
            attention_mask=(batch.sequence_ids > 0).long(),
            labels=labels_of(batch),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_without_dropout_the_curves_are_one(batches: list[Batch]) -> None:
    ours, theirs = (
        np.array(train_ours(CONFIG, batches, 0)),
        np.array(train_theirs(CONFIG, batches, 0)),
    )
    # Measured: 1.9e-6 in the first 50 steps, 5.2e-6 in all 200; the loss falls from 7.6 to 5.6.
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    assert ours[-20:].mean() < ours[:5].mean() - 1.5


def test_with_dropout_the_curves_are_as_close_as_those_of_other_seeds(batches: list[Batch]) -> None:
    config = replace(CONFIG, dropout=0.1, attention_dropout=0.1)
    ours, theirs = (
        np.array([train(config, batches, seed) for seed in range(3)])
        for train in (train_ours, train_theirs)
    )
    # Measured: means 1e-6 apart, for on CPUs both draw alike; theirs 1.1e-3, 2.3e-2 and 2.2e-2.
    for part in (slice(20), slice(60, 100), slice(160, 200)):
        own, peers = ours[:, part].mean(1), theirs[:, part].mean(1)
        assert abs(own.mean() - peers.mean()) < np.ptp(peers)
