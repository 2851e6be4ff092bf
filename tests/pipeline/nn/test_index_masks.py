"""What each rule of attention allows, in closed form, packed and unpacked, dense and flexible."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from pipeline.nn.masks import (
    IndexMask,
    after_memory,
    both,
    by_viewers,
    causal,
    content_stream,
    dense,
    others,
    query_stream,
    reverse_causal,
    same_sequence,
)
from preprocessing.corruption import (
    Context,
    PermutationConfig,
    Sequences,
    SpecialIds,
    UnilmConfig,
)

RULES = ("causal", "reverse_causal", "by_viewers", "others", "content_stream", "query_stream")


def rule(name: str, sequence_ids: Tensor, seen_by: Tensor, ranks: Tensor) -> IndexMask:
    """A rule within sequences, from what a batch may hold."""
    rules = {
        "causal": causal,
        "reverse_causal": reverse_causal,
        "by_viewers": by_viewers(seen_by),
        "others": others(sequence_ids),
        "content_stream": content_stream(ranks),
        "query_stream": query_stream(ranks),
    }
    return both(same_sequence(sequence_ids), rules[name])


def allowed(mask: IndexMask, length: int) -> list[list[int]]:
    """The keys that each query of a single row sees."""
    return [row.nonzero().flatten().tolist() for row in dense(mask, 1, length)[0, 0]]


def tensor(*values: int) -> Tensor:
    return torch.tensor([values])


def one_sequence(length: int) -> Sequences:
    return Sequences(
        tokens=np.full(length, 9),
        offsets=np.array([0, length]),
        ids=np.array([0], dtype=np.uint64),
        first_lengths=np.array([length]),
        labels=np.array([-1]),
        marks=np.zeros(0, dtype=np.uint8),
    )


def unilm_mask(mode: str, source: int, target: int) -> Tensor:
    """What the scheme's channel makes of one sequence of two segments."""
    length = source + target
    sequences = replace(one_sequence(length), first_lengths=np.array([source]))
    scheme = UnilmConfig(kind="unilm", mode=mode)
    corrupted = scheme.corrupt(Context(SpecialIds(size=20, mask=4)), sequences, seed=1, epoch=0)
    seen_by = torch.from_numpy(corrupted.channels["seen_by"])[None]
    return dense(by_viewers(seen_by), 1, length)[0, 0]


@pytest.mark.parametrize(("source", "target"), [(1, 1), (3, 2), (5, 9), (60, 68), (4, 0)])
def test_modes_of_unilm_have_their_closed_forms(source: int, target: int) -> None:
    length = source + target
    sequence = unilm_mask("sequence", source, target)
    expected = [source] * source + [source + turn for turn in range(1, target + 1)]
    assert sequence.sum(-1).tolist() == expected
    assert sequence.sum() == source * length + target * (target + 1) // 2
    assert not sequence[:source, source:].any(), "a source never sees its target"
    ones = torch.ones(length, length, dtype=torch.bool)
    assert (unilm_mask("left_to_right", source, target) == ones.tril()).all()
    assert (unilm_mask("right_to_left", source, target) == ones.triu()).all()
    assert unilm_mask("bidirectional", source, target).all()


def test_worked_examples() -> None:
    assert allowed(by_viewers(tensor(0, 0, 1, 1)), 4) == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2, 3]]
    assert allowed(by_viewers(tensor(2, 2, 2)), 3) == [[0, 1, 2], [1, 2], [2]]
    ranks = tensor(0, 2, 0, 1)
    assert allowed(content_stream(ranks), 4) == [[0, 2], [0, 1, 2, 3], [0, 2], [0, 2, 3]]
    assert allowed(query_stream(ranks), 4) == [[0, 2], [0, 2, 3], [0, 2], [0, 2]]
    assert allowed(others(tensor(1, 1, 1)), 3) == [[1, 2], [0, 2], [0, 1]]
    remembered = dense(after_memory(causal, 2), 1, 2, memory_length=2)[0, 0]
    assert remembered.int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_two_halves_of_a_permutation() -> None:
    """The example of the scheme: targets at 1, 3 and 5; the second half is that of 4 to 7."""
    ranks = tensor(0, 1, 0, 2, 3, 4, 6, 5)
    content, query = content_stream(ranks), query_stream(ranks)
    assert allowed(query, 8)[3] == [0, 1, 2]
    assert allowed(query, 8)[5] == [0, 1, 2, 3, 4]
    assert allowed(content, 8)[4] == [0, 1, 2, 3, 4]
    assert not dense(content, 1, 8)[0, 0, :4, 4:].any(), "half 1 cannot see half 2"
    assert dense(content, 1, 8)[0, 0, 4:, :4].all(), "half 2 sees all of half 1"
    assert (dense(content, 1, 8).diagonal(dim1=-2, dim2=-1)).all()
    own = dense(query, 1, 8).diagonal(dim1=-2, dim2=-1).flatten()
    assert own.tolist() == [True, False, True] + [False] * 5, "only rank 0 sees itself"


@given(st.lists(st.sampled_from([2, 3, 9, 10, 11]), min_size=1, max_size=40), st.integers(0, 99))
def test_targets_of_a_permutation_never_see_themselves(tokens: list[int], number: int) -> None:
    """Of what the scheme really draws: each has a key, and a half keeps its targets to itself."""
    length = len(tokens)
    scheme = PermutationConfig(kind="permutation", context=2)
    sequences = replace(one_sequence(length), tokens=np.array(tokens), ids=np.array([number], "u8"))
    sequences = replace(sequences, marks=np.ones(length, dtype=np.uint8))
    context = Context(SpecialIds(size=20, start=2, separator=3, mask=4))
    corrupted = scheme.corrupt(context, sequences, seed=1, epoch=0)
    ranks = torch.from_numpy(corrupted.channels["ranks"])[None]
    content, query = (dense(of(ranks), 1, length)[0, 0] for of in (content_stream, query_stream))
    targets = corrupted.targets["permutation_lm"].places.tolist()
    assert content.diagonal().all()
    assert content.any(-1).all()
    assert query.any(-1).all()
    assert not query[targets, targets].any()
    half = length // 2
    assert not content[:half, half:].any()
    assert content[half:, :half].all()
    is_plain = [place not in targets and tokens[place] > 3 for place in range(length)]
    for own in (range(half), range(half, length)):
        plain = [place for place in own if is_plain[place]]
        asked = [place for place in own if place in targets]
        assert not content[plain][:, asked].any()
        assert content[asked][:, plain].all()


def test_what_stands_alone_sees_itself() -> None:
    assert allowed(both(same_sequence(tensor(1, 2, 2, 0)), others(tensor(1, 2, 2, 0))), 4) == [
        [0],
        [2],
        [1],
        [3],
    ]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 6), st.randoms())
def test_packed_is_unpacked_and_no_query_is_left_without_a_key(lengths, padding, random) -> None:
    numbers = [number + 1 for number, length in enumerate(lengths) for _ in range(length)]
    length = len(numbers) + padding
    sequence_ids = tensor(*numbers, *[0] * padding)
    seen_by = tensor(*(random.randrange(3) for _ in numbers), *[0] * padding)
    # Dense ranks from 0 on within each sequence, as the scheme gives them.
    ranks = tensor(
        *(
            rank
            for own in lengths
            for rank in random.sample([max(0, turn) for turn in range(-1, own - 1)], own)
        ),
        *[0] * padding,
    )
    for name in RULES:
        whole = dense(rule(name, sequence_ids, seen_by, ranks), 1, length)[0, 0]
        assert whole.any(-1).all(), name
        expected = torch.zeros_like(whole)
        begin = 0
        for own in [*lengths, padding]:
            part = slice(begin, begin + own)
            alone = torch.full((1, own), 1 if part.start < len(numbers) else 0)
            unpacked = rule(name, alone, seen_by[:, part], ranks[:, part])
            expected[part, part] = dense(unpacked, 1, own)[0, 0]
            begin += own
        assert (whole == expected).all(), name


@given(st.integers(1, 6), st.integers(1, 12))
def test_memory_is_seen_by_all_and_changes_nothing_else(memory: int, length: int) -> None:
    sequence_ids = torch.ones(2, length, dtype=torch.long)
    within = both(same_sequence(sequence_ids), causal)
    mask = dense(after_memory(within, memory), 2, length, memory_length=memory)
    assert mask.shape == (2, 1, length, memory + length)
    assert mask[..., :memory].all()
    assert (mask[..., memory:] == dense(within, 2, length)).all()
    sums = memory + 1 + torch.arange(length)
    assert (mask.sum(-1) == sums).all()


def test_prefix_and_causal_outputs_do_not_depend_on_later_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 12, 8, generator=generator)
    seen_by = tensor(*[0] * 5, *[1] * 7)
    for mask, unchanged in ((by_viewers(seen_by), 9), (causal, 9)):
        own = dense(mask, 1, 12)
        before = scaled_dot_product_attention(query, key, value, attn_mask=own)
        other = value.clone()
        other[:, :, unchanged:] += 1
        after = scaled_dot_product_attention(query, key, other, attn_mask=own)
        assert (after[:, :, :unchanged] == before[:, :, :unchanged]).all()
        assert (after[:, :, unchanged:] != before[:, :, unchanged:]).any(-1).all()


def batch_of(length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two packed sequences and padding, beside one sequence from end to end."""
    generator = torch.Generator().manual_seed(0)
    first = [1] * (length // 3) + [2] * (length // 2)
    sequence_ids = torch.tensor([first + [0] * (length - len(first)), [1] * length])
    seen_by = torch.randint(0, 3, (2, length), generator=generator)
    ranks = torch.stack([torch.randperm(length, generator=generator) for _ in range(2)])
    for row in range(2):
        for number in range(3):
            own = sequence_ids[row] == number
            ranks[row, own] = ranks[row, own].argsort().argsort()
    return sequence_ids, seen_by, ranks


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("memory", [0, 64])
def test_flex_attention_takes_the_same_functions(name: str, memory: int) -> None:
    length = 128
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2, 4, length, 16, generator=generator)
    key, value = torch.randn(2, 2, 4, memory + length, 16, generator=generator)
    mask = rule(name, *batch_of(length))
    if memory:
        mask = after_memory(mask, memory)
    block_mask = create_block_mask(
        mask, B=2, H=None, Q_LEN=length, KV_LEN=memory + length, device="cpu"
    )
    flexible = flex_attention(query, key, value, block_mask=block_mask)
    own = dense(mask, 2, length, memory_length=memory)
    plain = scaled_dot_product_attention(query, key, value, attn_mask=own)
    torch.testing.assert_close(flexible, plain, atol=2e-6, rtol=0)  # measured: 7.2e-7
