"""FlexAttention and attention by boundaries, as far as a CPU can tell, beside the formula."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from attention_cases import (
    LENGTH,
    LIKE,
    ROWS,
    SEQUENCES,
    Disentangled,
    Distances,
    assert_equal,
    batch,
    formula,
    heads,
)
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention.flex_attention import flex_attention

from pipeline.batch import Batch
from pipeline.nn import attending
from pipeline.nn.attending import Attending, Flex, Kernel, Path, Varlen, boundaries
from pipeline.nn.masks import (
    IndexMask,
    after_memory,
    both,
    by_viewers,
    causal,
    content_stream,
    others,
    query_stream,
    reverse_causal,
    same_sequence,
)


@pytest.fixture
def taking(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a path the chosen one."""

    def take(name: Any) -> None:
        monkeypatch.setattr(attending.Attending, "path", lambda *_: Path(name, "a test"))

    return take


# -- flex


@pytest.fixture
def plain_flex(monkeypatch: pytest.MonkeyPatch, taking: Callable[[str], None]) -> None:
    """FlexAttention as written, without a compiler: the same functions, slowly."""
    module = sys.modules[flex_attention.__module__]
    monkeypatch.setattr(module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(attending, "_flex", lambda: flex_attention)
    taking("flex")


def rules(sequence_ids: Tensor) -> dict[str, IndexMask]:
    generator = torch.Generator().manual_seed(0)
    shape = sequence_ids.shape
    seen_by = torch.randint(3, shape, generator=generator)
    ranks = torch.arange(shape[1]).expand(shape) % 7
    first = F.pad(sequence_ids[:, 1:] != sequence_ids[:, :-1], (1, 0), value=True)
    return {
        "causal": causal,
        "reverse_causal": reverse_causal,
        "by_viewers": by_viewers(seen_by),
        "others": others(sequence_ids),
        "content_stream": content_stream(ranks.masked_fill(first, 0)),
        "query_stream": query_stream(ranks.masked_fill(first, 0)),
    }


def plain_heads(queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
    """On a CPU flex has no backward pass."""
    query, key, value = (tensor.detach() for tensor in heads(queries, keys))
    return query, key, value


def long_rows(length: int) -> Tensor:
    sequence_ids = torch.zeros(ROWS, length, dtype=torch.long)
    sequence_ids[0, : length // 3] = 1
    sequence_ids[0, length // 3 : length - 7] = 2
    sequence_ids[1] = 1
    return sequence_ids


@pytest.mark.usefixtures("plain_flex")
@pytest.mark.parametrize("length", [11, 150])
@pytest.mark.parametrize("name", [None, *rules(SEQUENCES)])
@torch.no_grad()
def test_flex_heeds_every_rule(name: str | None, length: int) -> None:
    sequence_ids = long_rows(length)
    rule = rules(sequence_ids)[name] if name else None
    inside = same_sequence(sequence_ids)
    kernel = Attending(0.0, 64, rule=rule is not None).within(batch(sequence_ids), rule, like=LIKE)
    assert isinstance(kernel, Flex)
    given = plain_heads(length, length)
    right = formula(*given, both(inside, rule) if rule else inside)
    torch.testing.assert_close(kernel(*given), right, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("plain_flex")
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("length", [11, 150])
@pytest.mark.parametrize("kind", ["distances", "disentangled"])
@torch.no_grad()
def test_flex_adds_terms_by_head_and_distance(kind: str, length: int, scale: float | None) -> None:
    sequence_ids = long_rows(length)
    module = Distances(20) if kind == "distances" else Disentangled(length, 20)
    kernel = Attending(0.0, 64, term=True).within(batch(sequence_ids), like=LIKE)
    given = plain_heads(length, length)
    right = formula(*given, same_sequence(sequence_ids), module.term, scale)
    found = kernel(*given, term=module.term, scale=scale)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-13)


@pytest.mark.usefixtures("plain_flex")
@torch.no_grad()
def test_flex_over_a_memory_and_to_an_encoder() -> None:
    memory = 140
    mask = after_memory(both(same_sequence(SEQUENCES), causal), memory)
    given = plain_heads(LENGTH, memory + LENGTH)
    kernel = Attending(0.0, 64, rule=True).over(mask, ROWS, LENGTH, memory + LENGTH, like=LIKE)
    assert isinstance(kernel, Flex)
    torch.testing.assert_close(kernel(*given), formula(*given, mask), rtol=0, atol=1e-13)


@pytest.mark.parametrize("within_blocks", [False, True])
@torch.no_grad()
def test_flex_is_compiled_once_for_all_layers_and_batches(
    monkeypatch: pytest.MonkeyPatch, taking: Callable[[str], None], within_blocks: bool
) -> None:
    """Every layer has a term of its own and every batch a mask; the backend here only counts."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(flex_attention, dynamic=False, backend=counter)
    monkeypatch.setattr(attending, "_compiled_flex", lambda: compiled)
    taking("flex")

    def layer(module: Distances, kernel: Kernel, given: tuple[Tensor, ...]) -> Tensor:
        return kernel(*given, term=module.term)

    if within_blocks:
        layer = torch.compile(layer, dynamic=False, fullgraph=True, backend=counter)
    layers = [Distances(6).requires_grad_(False) for _ in range(3)]
    given = plain_heads(LENGTH, LENGTH)
    for last in range(2, 5):
        sequence_ids = SEQUENCES.clamp(max=last)
        sequence_ids[1, last:] = 0
        kernel = Attending(0.0, 64, term=True).within(batch(sequence_ids), like=LIKE)
        for module in layers:
            right = formula(*given, same_sequence(sequence_ids), module.term)
            found = layer(module, kernel, given)
            torch.testing.assert_close(found, right, rtol=0, atol=1e-13)
    assert counter.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.slow
@torch.no_grad()
def test_compiled_flex_is_the_formula(taking: Callable[[str], None]) -> None:
    taking("flex")
    sequence_ids, module = long_rows(150), Distances(20).requires_grad_(False)
    given = plain_heads(150, 150)
    right = formula(*given, same_sequence(sequence_ids), module.term)
    kernel = Attending(0.0, 64, term=True).within(batch(sequence_ids), like=LIKE)
    query, key, value = (tensor.float() for tensor in given)
    found = kernel(query, key, value, term=module.float().term)
    # Measured: 3.8e-7.
    torch.testing.assert_close(found.double(), right, rtol=0, atol=3e-6)


# -- varlen


@torch.library.custom_op("lexmill_test::sequences", mutates_args=())
def sequences(
    query: Tensor, key: Tensor, value: Tensor, begins: Tensor, longest: int, scale: float | None
) -> Tensor:
    """What flash attention does, one sequence after the other; ``[tokens, heads, size]``."""
    cuts = begins.tolist()
    lengths = [end - begin for begin, end in pairwise(cuts)]
    assert begins.dtype == torch.int32
    assert sum(lengths) == len(query)
    assert 0 < min(lengths) <= max(lengths) <= longest
    parts = (tensor.transpose(0, 1).split(lengths, 1) for tensor in (query, key, value))
    mixed = [F.scaled_dot_product_attention(*one, scale=scale) for one in zip(*parts, strict=True)]
    return torch.cat(mixed, 1).transpose(0, 1).contiguous()


@sequences.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, begins: Tensor, longest: int, scale: float | None
) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


@torch.library.custom_op("lexmill_test::sequences_backward", mutates_args=())
def sequences_backward(
    slope: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    begins: Tensor,
    longest: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    found = [torch.empty_like(tensor) for tensor in (query, key, value)]
    for begin, end in pairwise(begins.tolist()):
        q, k, v, g = (tensor[begin:end].transpose(0, 1) for tensor in (query, key, value, slope))
        weights = (q @ k.mT * scale).softmax(-1)
        of_weights = g @ v.mT
        of_scores = weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True))
        own = scale * of_scores @ k, scale * of_scores.mT @ q, weights.mT @ g
        for whole, part in zip(found, own, strict=True):
            whole[begin:end] = part.transpose(0, 1)
    return found[0], found[1], found[2]


@sequences_backward.register_fake
def _(
    slope: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    begins: Tensor,
    longest: int,
    scale: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.rest = inputs[4:]


def _differentiate(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
    found = sequences_backward(slope.contiguous(), *context.saved_tensors, *context.rest)
    return *found, None, None, None


sequences.register_autograd(_differentiate, setup_context=_keep)


def stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    of_queries: Tensor,
    of_keys: Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """Takes what :func:`torch.nn.attention.varlen.varlen_attn` takes."""
    assert of_queries is of_keys
    assert longest_query == longest_key
    return sequences(query, key, value, of_queries, longest_query, scale)


@pytest.fixture
def plain_varlen(monkeypatch: pytest.MonkeyPatch, taking: Callable[[str], None]) -> None:
    monkeypatch.setattr(attending, "varlen_attn", stand_in)
    taking("varlen")


@pytest.mark.usefixtures("plain_varlen")
@pytest.mark.parametrize("scale", [None, 0.7])
def test_varlen_is_the_formula(scale: float | None) -> None:
    kernel = Attending(0.0, 64).within(batch(SEQUENCES), like=LIKE)
    assert isinstance(kernel, Varlen)
    assert_equal(kernel, same_sequence(SEQUENCES), heads(LENGTH, LENGTH), scale=scale)


@pytest.mark.usefixtures("plain_varlen")
def test_boundaries_that_were_found_beforehand_are_used() -> None:
    found = boundaries(SEQUENCES)
    one = Batch(*[SEQUENCES] * 4, boundaries=found)
    kernel = Attending(0.0, 64).within(one, like=LIKE)
    assert isinstance(kernel, Varlen)
    assert kernel.boundaries is found


@pytest.mark.usefixtures("plain_varlen")
def test_queries_that_autocast_left_in_fp32_are_lowered() -> None:
    given = tuple(tensor.detach().float() for tensor in heads(LENGTH, LENGTH))
    with torch.autocast("cpu", torch.bfloat16):
        kernel = Attending(0.0, 64).within(batch(SEQUENCES), like=given[0])
        assert kernel(*given).dtype == torch.bfloat16


@pytest.mark.usefixtures("plain_varlen")
def test_compiled_code_takes_any_number_of_sequences() -> None:
    """The real kernel is opaque to the compiler, too; the backend here only counts."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    def layer(query: Tensor, kernel: Kernel) -> Tensor:
        return kernel(query, query, 2 * query).tanh()

    compiled = torch.compile(layer, dynamic=False, fullgraph=True, backend=counter)
    for last in range(1, 8):
        sequence_ids = torch.tensor([[1] * 4 + list(range(2, last + 2)) + [0] * (7 - last)] * ROWS)
        kernel = Attending(0.0, 64).within(batch(sequence_ids), like=LIKE)
        query = heads(LENGTH, LENGTH)[0]
        found, right = compiled(query, kernel), layer(query, kernel)
        torch.testing.assert_close(found, right, rtol=0, atol=1e-13)
        (mine,) = torch.autograd.grad(found.sum(), query)
        (exact,) = torch.autograd.grad(right.sum(), query)
        torch.testing.assert_close(mine, exact, rtol=0, atol=1e-12)
    assert counter.frame_count == 1
    torch._dynamo.reset()
