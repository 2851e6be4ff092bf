"""A sentencepiece ``.model`` as a ``tokenizer.json``, by transformers' own converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, normalizers

from preprocessing.tokenizers.models import SentencePieceModel
from preprocessing.tokenizers.specials import Role
from preprocessing.tokenizers.template import add_template


def tokenizer_of(path: Path, roles: Mapping[Role, str]) -> Tokenizer:
    """The same pieces under the same ids, with the special tokens around segments.

    The converter is for models of any origin, and cuts all white space off the end of a text. The
    library itself takes spaces alone for white space, once its rules of normalization have made
    spaces of what they count as such; so it is said here.

    Args:
        path: of the model.
        roles: its special tokens.
    """
    from transformers.convert_slow_tokenizer import SpmConverter, generate_merges

    processor = SentencePieceModel.load(path).processor
    bytewise = any(map(processor.is_byte, range(processor.get_piece_size())))

    class Merges:
        """Of BPE; the converter's own function is called in a way it does not allow (5.23)."""

        def __init__(self, path: str) -> None:
            pass

        def extract(self, scored: Sequence[tuple[str, float]]) -> tuple[dict[str, int], Any]:
            ids = {piece: index for index, (piece, _) in enumerate(scored)}
            special = {piece for piece, index in ids.items() if processor.is_control(index)}
            return ids, generate_merges(ids, scored, special)

    class Converter(SpmConverter):  # type: ignore[misc]
        handle_byte_fallback = bytewise
        SpmExtractor = Merges

        def normalizer(self, proto: Any) -> normalizers.Normalizer:
            rules = proto.normalizer_spec.precompiled_charsmap
            return normalizers.Sequence(
                [
                    *([normalizers.Precompiled(rules)] if rules else []),
                    normalizers.Replace(Regex(" +$(?!\\n)"), ""),
                    normalizers.Replace(Regex(" {2,}"), " "),
                ]
            )

    tokenizer: Tokenizer = Converter(SimpleNamespace(vocab_file=str(path))).converted()
    if bytewise:
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), tokenizer.decoder])
    add_template(tokenizer, roles)
    return tokenizer
