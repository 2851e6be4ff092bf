"""What a training step of BERT-large holds at its peak, beside transformers: bytes of tensors.

Nothing is computed: shapes go through both models, and every storage counts from the operation that
makes it until nobody holds it any more. Weights and gradients count, optimizer states do not.

What a layer keeps for its backward pass, in bytes a token of width d:

                                     fp32    bf16
    attention's input                  4 d     2 d    bf16: a copy for the products
    query, key, value                 12 d     6 d
    mixed values                       4 d     2 d
    sum before the norm, twice         8 d     8 d
    feed-forward's input               4 d     2 d
    up                                16 d     8 d
    gelu                              16 d     8 d    not with "selective"
    masks of dropout, twice            2 d     2 d
                                      66 d    38 d    and 16 for the norms, 4 for each head

Theirs keeps the same and 6 d more in bf16 (a copy of attention's input for each product; ours is
one for all three), and makes scores at all places in fp32, three times over: 3 V floats a token,
89 d of the 396 d (fp32) that the 24 layers of BERT-large keep.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple, get_args

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.batch import Batch, Targets
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.blocks import Checkpointing, save_memory
from pipeline.objectives.masked_lm import MaskedLM, MaskedLMConfig
from pipeline.objectives.task import PretrainingTask
from pipeline.sections import TrainConfig

ROWS, LENGTH = 32, 512
TARGETS = ROWS * 77
LARGE = BertConfig(
    family="bert",
    vocab_size=30522,
    hidden_size=1024,
    num_layers=24,
    num_heads=16,
    intermediate_size=4096,
    dropout=0.1,
    attention_dropout=0.0,
    next_sentence=False,
)
"""Attention drops nothing on either side: torch's attention on CPUs would write out its weights
then, which none of its kernels on GPUs does."""


class Bytes(NamedTuple):
    """Of a step: the weights, what the backward pass begins with beyond them, and the peak."""

    weights: int
    kept: int
    peak: int


class Living(TorchDispatchMode):
    """Counts the bytes of storages from the first tensor that is seen on them to their end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._held: dict[int, object] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.see(tensor)
        return made

    def see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return

        def end(_: object) -> None:
            del self._held[key]
            self.now -= size

        self._held[key] = weakref.ref(storage, end)
        self.now += size
        self.peak = max(self.peak, self.now)


def masks_of_bytes(hidden: Tensor, p: float, training: bool, inplace: bool = False) -> Tensor:
    """Dropout as on GPUs, where its mask is bytes; on CPUs torch keeps a number an element."""
    return torch.native_dropout(hidden, p, training)[0]


@pytest.fixture(autouse=True)
def dropout_as_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "dropout", masks_of_bytes)


def measure(model: nn.Module, loss: Callable[[], Tensor], *, bf16: bool) -> Bytes:
    """One forward and backward pass."""
    with Living() as living:
        for tensor in model.parameters():
            living.see(tensor)
        weights = living.now
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            total = loss()
        kept = living.now - weights
        total.backward()
    return Bytes(weights, kept, living.peak)


def ours(checkpointing: Checkpointing = "none", *, bf16: bool, config: BertConfig = LARGE) -> Bytes:
    """Rows of several sequences, scores at the targets."""
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bert, "initialize", lambda self: None)  # draws cannot be checked here
        model = Bert(config).train()
        save_memory(model, checkpointing)
        model.attending.static = True  # a mask, whatever the rows hold
        task = PretrainingTask(model, {"masked_lm": MaskedLM(MaskedLMConfig(kind="masked_lm"))})
        ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
        targets = torch.zeros(TARGETS, dtype=torch.long)
        batch = Batch(ids, ids + 1, ids, ids, {"masked_lm": Targets(targets, targets)})
        count = torch.ones(1)
        return measure(task, lambda: task(batch, count).loss, bf16=bf16)


def theirs(*, bf16: bool) -> Bytes:
    """Full rows without a mask; of what the model returns only the loss is held."""
    fields = {"hidden_dropout_prob": LARGE.dropout, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(
        vocab_size=LARGE.vocab_size,
        hidden_size=LARGE.hidden_size,
        num_hidden_layers=LARGE.num_layers,
        num_attention_heads=LARGE.num_heads,
        intermediate_size=LARGE.intermediate_size,
        attn_implementation="sdpa",
        **fields,
    )
    with FakeTensorMode():
        model = transformers.BertForMaskedLM(config).train()
        ids = torch.zeros(ROWS, LENGTH, dtype=torch.long)
        return measure(model, lambda: model(input_ids=ids, labels=ids).loss, bf16=bf16)


@pytest.mark.parametrize(("bf16", "by_hand"), [(False, 66), (True, 38)])
def test_a_layer_keeps_what_its_backward_pass_needs_and_nothing_else(
    bf16: bool, by_hand: int
) -> None:
    width, heads = 64, 2
    config = replace(LARGE, hidden_size=width, num_heads=heads, intermediate_size=4 * width)
    one, two = (
        ours(bf16=bf16, config=replace(config, num_layers=layers)).kept for layers in (1, 2)
    )
    lowered = 2 * 12 * width**2 if bf16 else 0  # autocast's copies of the matrices
    assert two - one == ROWS * LENGTH * (by_hand * width + 16 + 4 * heads) + lowered


def test_a_step_of_bert_large_in_bf16_needs_less_than_that_of_transformers() -> None:
    peer = theirs(bf16=True).peak
    ratios = {mode: peer / ours(mode, bf16=True).peak for mode in get_args(Checkpointing)}
    # Measured: 1.399, 1.704, 5.90, of 23.4 GiB.
    assert ratios["none"] > 1.39
    assert ratios["selective"] > 1.7
    assert ratios["full"] > 5.8


def test_a_step_of_bert_large_in_fp32_needs_less_than_that_of_transformers() -> None:
    peer = theirs(bf16=False).peak
    # Measured: 1.201, 1.534, 7.50, of 31.9 GiB.
    ratios = {mode: peer / ours(mode, bf16=False).peak for mode in get_args(Checkpointing)}
    assert ratios["none"] > 1.2
    assert ratios["selective"] > 1.5
    assert ratios["full"] > 7


def test_what_a_recipe_trains_with_unless_told_otherwise_is_the_thrifty_form() -> None:
    assert TrainConfig(micro_batch_rows=1).activation_checkpointing == "selective"
