"""Each character one token."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordLevel

from preprocessing.tokenizers.settings import CharactersConfig
from preprocessing.tokenizers.specials import roles_of

_CODE_POINTS = 0x110000


def train_characters(
    config: CharactersConfig, texts: Callable[[], Iterable[list[str]]]
) -> Tokenizer:
    """The commonest characters, commonest first, of equal ones the lower code point first.

    They are taken until they cover the wanted share of all characters or the vocabulary is full;
    the others are unknown. White space is what Unicode calls so (``str.isspace`` without the
    separators U+001C to U+001F).
    """
    pipeline = characters_pipeline([], config)
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    for batch in texts():
        normalize = pipeline.normalizer.normalize_str
        joined = "".join(normalize(text) for text in batch).encode("utf-32-le")
        found = np.bincount(np.frombuffer(joined, dtype="<u4"))
        counts[: len(found)] += found
    for point in np.flatnonzero(counts):
        if not pipeline.pre_tokenizer.pre_tokenize_str(chr(point)):
            counts[point] = 0  # white space that is dropped
    commonest = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    before = np.cumsum(counts[commonest]) - counts[commonest]
    needed = commonest[before < config.coverage * counts.sum()]
    room = config.vocab_size - len(config.reserved_tokens)
    return characters_pipeline([chr(point) for point in needed[:room]], config)


def characters_pipeline(characters: list[str], config: CharactersConfig) -> Tokenizer:
    """The tokenizer of some characters, in the order of their ids."""
    pieces = {piece: index for index, piece in enumerate([*config.reserved_tokens, *characters])}
    roles = roles_of(config.special_tokens)
    tokenizer = Tokenizer(WordLevel(vocab=pieces, unk_token=roles["unknown"]))
    steps: list[normalizers.Normalizer] = []
    if config.lowercase:
        steps.append(normalizers.Lowercase())
    each = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")  # Oniguruma's m: a dot is any one
    if config.whitespace == "token":
        steps.append(normalizers.Replace(Regex(r"\s+"), " "))
        tokenizer.pre_tokenizer = each
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), each])
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(config.reserved_tokens))
    return tokenizer
