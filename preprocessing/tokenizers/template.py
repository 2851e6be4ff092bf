"""The special tokens that a ``tokenizer.json`` puts around the segments of a sequence."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Tokenizer, processors

from preprocessing.tokenizers.specials import Role


def add_template(tokenizer: Tokenizer, roles: Mapping[Role, str]) -> None:
    """Have the start token before a sequence and the separator behind each of its segments.

        [CLS] a b c [SEP] d e [SEP]     ids of segments: 0 0 0 0 0 1 1 1
        a b c </s> d e </s>             without a start token

    Without a separator nothing is put anywhere.
    """
    if "separator" not in roles:
        return
    separator = _with_id(tokenizer, roles["separator"])
    if "start" in roles:
        start = _with_id(tokenizer, roles["start"])
        tokenizer.post_processor = processors.BertProcessing(separator, start)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A:0", f"{separator[0]}:0"],
            pair=["$A:0", f"{separator[0]}:0", "$B:1", f"{separator[0]}:1"],
            special_tokens=[separator],
        )


def _with_id(tokenizer: Tokenizer, token: str) -> tuple[str, int]:
    index = tokenizer.token_to_id(token)
    assert index is not None, token
    return token, index
