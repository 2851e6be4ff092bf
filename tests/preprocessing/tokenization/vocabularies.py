"""Small vocabularies of every kind, and texts of every script to try them on."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from preprocessing.texts import Texts
from preprocessing.tokenization.base import Encoded, Encoder
from preprocessing.tokenization.reference import Reference

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

PROSE = [
    "The quick brown foxes weren't jumping over the lazy dogs; they'd stopped, hadn't they?",
    "Größe, Äpfel und Öl: naïve café résumés — “déjà vu” …  ﬁn. İstanbul ÀÉÎÕÜ",
    "東京は大きい。「行こう。」と言った。中国人民银行今天开门 漢字と仮名ガギグゲゴ 한국어 단어들",
    "Это русский текст с ёлками и йогуртом. עברית עם נִקּוּד. نَصٌّ عَرَبِيٌّ مُشَكَّل हिन्दी में पाठ ไทย",
    "1234 5,678.90 ³ ½ Ⅷ ٣٤ \t tabs\n\nnew  lines   spaces \u00a0\u2003\u3000 e\u0301 a\u030a",
    "emoji 🙂🙃 👩\u200d🚀 zero\u200bwidth soft\u00adhyphen \x01\x02 \ufffd \ue000 [MASK] [UNK]",
] * 3


def settled(tokenizer: Tokenizer) -> Tokenizer:
    """As the stages use it."""
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.encode_special_tokens = True
    return tokenizer


def wordpiece(
    *,
    size: int = 400,
    texts: Iterable[str] = PROSE,
    longest: int = 100,
    **options: bool | None,
) -> Tokenizer:
    def pipeline(model: models.WordPiece) -> Tokenizer:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(**options)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    trained = pipeline(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=SPECIAL, limit_alphabet=size // 2, show_progress=False
    )
    trained.train_from_iterator(texts, trainer)
    model = models.WordPiece(
        vocab=trained.get_vocab(with_added_tokens=False),
        unk_token="[UNK]",
        max_input_chars_per_word=longest,
    )
    return settled(pipeline(model))


def byte_level(*, size: int = 450, texts: Iterable[str] = PROSE) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return settled(tokenizer)


def characters(*, lowercase: bool, keep_space: bool, texts: Iterable[str] = PROSE) -> Tokenizer:
    listed = sorted({character for text in texts for character in text.lower()})[::2]
    pieces = {piece: index for index, piece in enumerate([*SPECIAL, " ", *listed])}
    tokenizer = Tokenizer(models.WordLevel(vocab=pieces, unk_token="[UNK]"))
    each = pre_tokenizers.Split(Regex(r"(?m:.)"), "isolated")
    steps: list[normalizers.Normalizer] = [normalizers.Lowercase()] if lowercase else []
    if keep_space:
        steps.append(normalizers.Replace(Regex(r"\s+"), " "))
        tokenizer.pre_tokenizer = each
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), each])
    tokenizer.normalizer = normalizers.Sequence(steps)
    return settled(tokenizer)


KINDS = {
    "uncased": lambda: wordpiece(lowercase=True),
    "cased": lambda: wordpiece(lowercase=False),
    "tiny": lambda: wordpiece(size=120, lowercase=True),
    "short words": lambda: wordpiece(lowercase=True, longest=7),
    "cased without accents": lambda: wordpiece(lowercase=False, strip_accents=True),
    "uncased with accents": lambda: wordpiece(lowercase=True, strip_accents=False),
    "unclean": lambda: wordpiece(lowercase=True, clean_text=False),
    "ideographs in words": lambda: wordpiece(lowercase=True, handle_chinese_chars=False),
    "bytes": byte_level,
    "bytes alone": lambda: byte_level(size=261),
    "characters": lambda: characters(lowercase=False, keep_space=False),
    "lower characters": lambda: characters(lowercase=True, keep_space=False),
    "characters and spaces": lambda: characters(lowercase=True, keep_space=True),
}

# Code points that some step treats in a way of its own, drawn as often as all others together.
_PECULIAR = (
    " \t\n\r\v\f\x1c\x1f\x85\u00a0\u1680\u2003\u2028\u202f\u3000'’ʼ\"-_.,!?[]#$+<=^`|~"
    "aAzZsStTmMdDrReEvVlL019²½ⅧΣςσßẞİıǅﬁéÀöñeo\u0301\u0308\u0323\u030a\u0345\u0307\u034f"
    "\x00\x01\x7f\x80\u00ad\u200b\u200c\u200d\u2060\ufeff\ufffd\ue000\U000f0000\U0010ffff\uffff"
    "\u037e\u1fef\u212a\u2126\u2260\u226e\u0385一丁龥\u9fff㐀䶿\uf900\ufaff𠀀𪛟\U0002a6df\U0002b81f"
    "\U0002b820\U0002ceaf\U0002ceb0\U0002f800\U000323af\U000323b0ガがカ゛\u3099한국ᄒ\u11abกำ\u0e33न\u093fक्"
    "ا\u064bل\u0651א\u05b8🙂🏽👩🚀❤\ufe0f\U000e0100、。「」…—“”٣०\u0378\U0001fffe"
)
UNICODE = st.text(
    st.one_of(st.sampled_from(_PECULIAR), st.characters(exclude_categories=["Cs"])), max_size=60
)
PHRASES = st.lists(
    st.sampled_from(
        [
            *" ".join(PROSE).split(),
            " ",
            "  ",
            "\n",
            "'s",
            " 'll",
            "'",
            "x" * 70,
            "ab" * 60,
            "字" * 90,
        ]
    ),
    max_size=30,
).map("".join)
TEXTS = st.lists(st.one_of(UNICODE, PHRASES), max_size=6)


def column(texts: list[str]) -> Texts:
    return Texts.of(pa.array(texts, pa.large_string()))


def all_marks(texts: Texts) -> np.ndarray:
    """Every place between characters of the column, ends included."""
    places = np.arange(texts.offsets[0], texts.offsets[-1])
    return np.append(places[texts.data[places] & 0xC0 != 0x80], texts.offsets[-1])


def reference_of(tokenizer: Tokenizer) -> Reference:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    continues = None
    if isinstance(tokenizer.model, models.WordPiece):
        continues = np.zeros(size, np.bool_)
        for piece, index in tokenizer.get_vocab(with_added_tokens=True).items():
            continues[index] = piece.startswith("##") and len(piece) > 2
    return Reference(tokenizer, np.uint16, continues)


def assert_equal(given: Encoded, expected: Encoded) -> None:
    assert given.ids.tolist() == expected.ids.tolist()
    assert given.ids.dtype == expected.ids.dtype
    assert given.offsets.tolist() == expected.offsets.tolist()
    assert given.word_starts.tolist() == expected.word_starts.tolist()
    assert given.marks.tolist() == expected.marks.tolist()
    assert given.exact.tolist() == expected.exact.tolist()


def encode(encoder: Encoder, texts: list[str]) -> Encoded:
    own = column(texts)
    return encoder.encode(own, all_marks(own))
