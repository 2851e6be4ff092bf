"""Unigram (Kudo, 2018) and BPE (Sennrich et al., 2016) by the sentencepiece library.

The library leaves out of its training what it cannot use, and says so in its log alone: lines of
more than ``max_sentence_length`` bytes, and lines with U+2585, by which it marks unknown
characters. Here long texts are cut and that character is replaced beforehand, and both are counted.
Names of special tokens in a text part it, so they never become pieces.

A unigram model is found by expectation maximisation in 32-bit floats, summed up per thread: the
result depends on the library's ``num_threads`` and on nothing else. It is pinned to a number that
says nothing of the machine; threads beyond its cores only wait for each other.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import sentencepiece

from preprocessing.storage import InputError
from preprocessing.tokenizers.models import SentencePieceModel
from preprocessing.tokenizers.settings import SentencePieceConfig
from preprocessing.tokenizers.specials import Role, roles_of

MAX_TEXT_BYTES = 1 << 16
"""Longest text given to the trainer; it is cut into words there, so nothing is lost at the cuts."""
NUM_THREADS = 4
_RESERVED = re.compile("[\x00\u2585]")
_OWN: Mapping[str, Role] = {
    "pad": "pad", "unk": "unknown", "bos": "start", "eos": "separator"
}  # fmt: skip
_QUIET = 2  # the library's log: errors alone


@dataclass
class TrainingLines:
    """Texts as the trainer takes them, and what had to be done to them.

    Attributes:
        counts: ``cut_at_white_space``, ``cut_inside_words``: places where a long text was cut;
            ``reserved_characters``: replaced by a space.
    """

    texts: Iterable[list[str]]
    counts: dict[str, int] = field(
        default_factory=lambda: {
            "cut_at_white_space": 0,
            "cut_inside_words": 0,
            "reserved_characters": 0,
        }
    )

    def __iter__(self) -> Iterator[str]:
        for batch in self.texts:
            for text in batch:
                text, replaced = _RESERVED.subn(" ", text)
                self.counts["reserved_characters"] += replaced
                yield from self._cut(text)

    def _cut(self, text: str) -> Iterator[str]:
        while len(text.encode()) > MAX_TEXT_BYTES:
            end = len(text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore"))
            space = max(text.rfind(" ", 1, end), text.rfind("\n", 1, end))
            self.counts["cut_at_white_space" if space > 0 else "cut_inside_words"] += 1
            place = space if space > 0 else end
            yield text[:place]
            text = text[place:]
        if text:
            yield text


def train_sentencepiece(config: SentencePieceConfig, lines: TrainingLines) -> SentencePieceModel:
    """Train a model on lines, gone through once and held in memory by the library.

    Raises:
        InputError: the library refuses: mostly since the vocabulary is too small for the
            characters it has to cover.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type={"unigram": "unigram", "sentencepiece_bpe": "bpe"}[config.kind],
            vocab_size=config.vocab_size,
            hard_vocab_limit=False,
            character_coverage=config.character_coverage,
            byte_fallback=config.byte_fallback,
            normalization_rule_name=config.normalization,
            split_digits=config.split_digits,
            max_sentencepiece_length=config.max_sentencepiece_length,
            max_sentence_length=MAX_TEXT_BYTES,
            num_threads=NUM_THREADS,
            **_special_pieces(config),
            minloglevel=_QUIET,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"tokenizer: sentencepiece could not train a vocabulary of {config.vocab_size}: {error}"
        ) from None
    return SentencePieceModel(model.getvalue())


def _special_pieces(config: SentencePieceConfig) -> dict[str, Any]:
    """The library's own four under their names and ids; the others fill the ids left free."""
    roles, tokens = roles_of(config.special_tokens), config.special_tokens
    own = {short: roles[role] for short, role in _OWN.items() if role in roles}
    absent = {f"{short}_id": -1 for short in _OWN.keys() - own.keys()}
    ids = {f"{short}_id": tokens.index(name) for short, name in own.items()}
    names = {f"{short}_piece": name for short, name in own.items()}
    others = [name for name in config.reserved_tokens if name not in own.values()]
    return {**absent, **ids, **names, "control_symbols": others}
