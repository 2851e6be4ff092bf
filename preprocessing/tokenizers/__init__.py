"""Vocabularies: trained on the documents, or adopted. One file a kind.

wordpiece.py
    BERT's: words split at white space and punctuation, ``##`` before what continues a word.
sentencepiece.py
    Unigram and BPE over raw text by the sentencepiece library, whose ``.model`` is kept.
byte_level.py
    GPT-2's: BPE over bytes, which knows no unknown text.
characters.py
    Each character one token.
adoption.py
    A ``tokenizer.json``, ``vocab.txt`` or ``.model`` that exists already.
sampling.py
    Which documents a vocabulary is trained on, language by language.
coverage.py
    How well it fits: tokens a word, unknown text, characters it knows.
"""

from preprocessing.tokenizers.settings import (
    ByteLevelBPEConfig,
    CharactersConfig,
    ExistingTokenizerConfig,
    SamplingConfig,
    SentencePieceConfig,
    TokenizerConfig,
    TrainingConfig,
    WordPieceConfig,
)

__all__ = [
    "ByteLevelBPEConfig",
    "CharactersConfig",
    "ExistingTokenizerConfig",
    "SamplingConfig",
    "SentencePieceConfig",
    "TokenizerConfig",
    "TrainingConfig",
    "WordPieceConfig",
]
