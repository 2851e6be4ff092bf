"""WordPiece, with BERT's basic tokenizer around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.trainers import WordPieceTrainer

from preprocessing.tokenizers.settings import WordPieceConfig
from preprocessing.tokenizers.specials import roles_of
from preprocessing.tokenizers.template import add_template

_CONTINUING = "##"
_ALPHABET_SHARE = 0.5
"""At most this share of the pieces are single characters; rarer characters become unknown."""
_CODE_POINTS = 0x110000
_UNSEEN, _BETWEEN_WORDS, _A_WORD, _IN_WORDS = range(4)  # what a character is to the tokenizer


def bert_pipeline(model: WordPiece, *, lowercase: bool) -> Tokenizer:
    """BERT's tokenizer around a WordPiece model: basic tokenizer and decoder."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lowercase
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUING)
    return tokenizer


def train_wordpiece(config: WordPieceConfig, texts: Callable[[], Iterable[list[str]]]) -> Tokenizer:
    """Train a WordPiece vocabulary on batches of texts, which are gone through twice.

    The library numbers single characters in the order of a hash table, and breaks ties between
    merges by these numbers: two runs differ. It is given the characters in an order of ours.
    """
    roles = roles_of(config.special_tokens)
    unknown = roles["unknown"]
    tokenizer = bert_pipeline(WordPiece(unk_token=unknown), lowercase=config.lowercase)
    most = int(config.vocab_size * _ALPHABET_SHARE)
    alphabet = common_characters(tokenizer, texts(), most)
    trainer = WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=[*config.reserved_tokens, *alphabet],
        initial_alphabet=[piece for piece in alphabet if len(piece) == 1],
        limit_alphabet=0,
        continuing_subword_prefix=_CONTINUING,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer=trainer)
    # Anew, since the trainer has made every character a special token.
    pieces = tokenizer.get_vocab(with_added_tokens=False)
    model = WordPiece(vocab=pieces, unk_token=unknown)
    pipeline = bert_pipeline(model, lowercase=config.lowercase)
    pipeline.add_special_tokens(list(config.reserved_tokens))
    add_template(pipeline, roles)
    return pipeline


def common_characters(tokenizer: Tokenizer, texts: Iterable[list[str]], most: int) -> list[str]:
    """At most so many single-character pieces: the commonest characters, sorted.

    A character that also stands inside words takes two pieces, ``a`` and ``##a``.
    """
    counts = np.zeros(_CODE_POINTS, dtype=np.int64)
    inside = np.zeros(_CODE_POINTS, dtype=bool)
    role = np.full(_CODE_POINTS, _UNSEEN, dtype=np.int8)
    for batch in texts:
        joined = "\n".join(tokenizer.normalizer.normalize_str(text) for text in batch)
        points = np.frombuffer(joined.encode("utf-32-le"), dtype="<u4")
        found = np.bincount(points)
        counts[: len(found)] += found
        for point in np.flatnonzero(found):
            if role[point] == _UNSEEN:
                parts = tokenizer.pre_tokenizer.pre_tokenize_str(f"a{chr(point)}a")
                role[point] = {1: _IN_WORDS, 2: _BETWEEN_WORDS, 3: _A_WORD}[len(parts)]
        in_words = role[points] == _IN_WORDS
        inside[points[1:][in_words[1:] & in_words[:-1]]] = True
    counts[role == _BETWEEN_WORDS] = 0
    commonest = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    kept = np.sort(commonest[np.cumsum(1 + inside[commonest]) <= most])
    return [
        *(chr(point) for point in kept),
        *(_CONTINUING + chr(point) for point in kept if inside[point]),
    ]
