"""Byte-level BPE as GPT-2's (Radford et al., 2019): merges of bytes within words."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from preprocessing.tokenizers.settings import ByteLevelBPEConfig


def train_byte_level(
    config: ByteLevelBPEConfig, texts: Callable[[], Iterable[list[str]]]
) -> Tokenizer:
    """Train on batches of texts, split by GPT-2's regular expression.

    The whole byte alphabet is given in sorted order. Merges of equal count are tried by the ids of
    their parts, which follow from the alphabet and earlier merges, so nothing is left to chance.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=list(config.reserved_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer=trainer)
    return tokenizer
