import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["the quick brown fox jumps over the lazy dog", "hyphens, accents and 3.14 numbers é ü 東"]


@pytest.fixture
def tokenizer_directory(tmp_path: Path) -> Path:
    """A lowercasing WordPiece tokenizer of 100 tokens at most, as our own stage writes it."""
    return make_tokenizer(tmp_path / "tokenizer", lowercase=True)


def make_tokenizer(directory: Path, *, lowercase: bool) -> Path:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    parts = [normalizers.NFKC()] + ([normalizers.Lowercase()] if lowercase else [])
    tokenizer.normalizer = normalizers.Sequence(parts)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=100, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    ids = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    directory.mkdir()
    tokenizer.save(str(directory / "tokenizer.json"))
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (directory / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words))
    return directory


def perturb(parameters: Sequence[torch.nn.Parameter], seed: int, std: float = 0.1) -> None:
    """Move every parameter away from 0 and 1, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)


@pytest.fixture(name="perturb")
def perturb_fixture():
    return perturb


@pytest.fixture(name="make_tokenizer")
def make_tokenizer_fixture():
    return make_tokenizer
