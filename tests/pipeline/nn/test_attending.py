"""Dense attention beside the formula in float64; boundaries, the choice of a path, refusals."""

from __future__ import annotations

import pytest
import torch
from attention_cases import (
    LENGTH,
    LIKE,
    ROWS,
    SEQUENCES,
    Distances,
    assert_equal,
    batch,
    formula,
    heads,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.nn.attending import Attending, Dense, Flex, Varlen, boundaries
from pipeline.nn.masks import IndexMask, after_memory, both, causal, everywhere, same_sequence


def everything(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return key >= 0


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize("with_term", [False, True])
@pytest.mark.parametrize("rule", [None, causal])
@pytest.mark.parametrize("sequence_ids", [SEQUENCES, torch.ones_like(SEQUENCES)])
def test_dense_within_sequences_is_the_formula(
    scale: float | None, with_term: bool, rule: IndexMask | None, sequence_ids: Tensor
) -> None:
    inside = same_sequence(sequence_ids)
    mask = inside if rule is None else both(inside, rule)
    asked = Attending(0.0, 64, rule=rule is not None, term=with_term)
    kernel = asked.within(batch(sequence_ids), rule, like=LIKE)
    assert isinstance(kernel, Dense)
    module = Distances(4) if with_term else None
    assert_equal(kernel, mask, heads(LENGTH, LENGTH), module, scale)


def test_one_sequence_a_row_needs_no_mask_unless_all_kernels_are_to_be_alike() -> None:
    whole = batch(torch.ones_like(SEQUENCES))
    assert Attending(0.0, 64).within(whole, like=LIKE) == Dense(None)
    static = Attending(0.0, 64, static=True).within(whole, like=LIKE)
    assert isinstance(static, Dense)
    assert static.mask is not None
    assert_equal(static, everything, heads(LENGTH, LENGTH))


@pytest.mark.parametrize("with_term", [False, True])
def test_dense_over_a_memory_is_the_formula(with_term: bool) -> None:
    memory = 4
    mask = after_memory(both(same_sequence(SEQUENCES), causal), memory)
    kernel = Attending(0.0, 64, rule=True).over(mask, ROWS, LENGTH, memory + LENGTH, like=LIKE)
    given = heads(LENGTH, memory + LENGTH)
    assert_equal(kernel, mask, given, Distances(6) if with_term else None)


def test_dense_to_a_shorter_encoder_is_the_formula() -> None:
    encoded = torch.tensor([[1, 1, 2, 3, 0], [1, 2, 2, 2, 2]])

    def belongs(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return SEQUENCES[row, query] == encoded[row, key]

    kernel = Attending(0.0, 64, rule=True).over(belongs, ROWS, LENGTH, 5, like=LIKE)
    assert_equal(kernel, belongs, heads(LENGTH, 5), Distances(3))


def test_boolean_masks_are_taken_too() -> None:
    inside = same_sequence(SEQUENCES)
    kernel = Dense(everywhere(inside, ROWS, 1, LENGTH, LENGTH))
    assert_equal(kernel, inside, heads(LENGTH, LENGTH))
    assert_equal(kernel, inside, heads(LENGTH, LENGTH), Distances(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_takes_masks_and_terms_of_any_precision(dtype: torch.dtype) -> None:
    given = tuple(tensor.detach().float() for tensor in heads(LENGTH, LENGTH))
    module = Distances(4).float()
    inside = same_sequence(SEQUENCES)
    right = formula(*(tensor.double() for tensor in given), inside, Distances.term.__get__(module))
    with torch.autocast("cpu", dtype):
        kernel = Attending(0.0, 64, term=True).within(batch(SEQUENCES), like=given[0])
        found = kernel(*given, term=module.term)
    assert found.dtype == dtype
    # Of values up to 3: measured 0.012 and 0.0014.
    torch.testing.assert_close(found.double(), right, rtol=0, atol=6 * torch.finfo(dtype).eps)


def test_hidden_keys_do_nothing_even_where_they_are_not_finite() -> None:
    """Keys only: a weight of 0 does not save a value that is infinite."""
    query, key, value = heads(LENGTH, LENGTH)
    with torch.no_grad():
        key[0, :, 9:] = 1e300
    kernel = Attending(0.0, 64).within(batch(SEQUENCES), like=LIKE)
    right = formula(query, key.where(key < 1e200, 0), value, same_sequence(SEQUENCES))
    found = kernel(query, key, value)
    torch.testing.assert_close(found[:, :, :9], right[:, :, :9], rtol=0, atol=1e-13)


def test_boundaries_worked_example() -> None:
    found = boundaries(torch.tensor([[1, 1, 2, 0], [1, 1, 1, 1]]))
    assert found.tolist() == [0, 2, 3, 4, 8]
    assert found.dtype == torch.int32


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), min_size=1, max_size=4), st.integers(0, 3))
def test_boundaries_are_those_of_the_lengths(rows: list[list[int]], padding: int) -> None:
    length = max(1, *map(sum, rows)) + padding
    sequence_ids, expected = torch.zeros(len(rows), length, dtype=torch.long), [0]
    for row, lengths in enumerate(rows):
        numbers = [number for number, own in enumerate(lengths, 1) for _ in range(own)]
        sequence_ids[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        rest = length - len(numbers)
        for own in [*lengths, *([rest] if rest else [])]:
            expected.append(expected[-1] + own)
    assert boundaries(sequence_ids).tolist() == expected


BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


@pytest.mark.parametrize(
    ("device", "dtype", "dropout", "rule", "term", "name", "reason"),
    [
        ("cpu", BF16, 0.0, False, False, "dense", "no other on cpu"),
        ("cpu", FP32, 0.1, True, True, "dense", "no other on cpu"),
        ("cuda", BF16, 0.0, False, False, "varlen", "whole sequences"),
        ("cuda", FP16, 0.0, False, False, "varlen", "whole sequences"),
        ("cuda", FP32, 0.0, False, False, "flex", "does not compute in torch.float32"),
        ("cuda", BF16, 0.1, False, False, "dense", "dropout is 0.1"),
        ("cuda", BF16, 0.1, True, True, "dense", "dropout is 0.1"),
        ("cuda", BF16, 0.0, True, False, "flex", "rules or terms"),
        ("cuda", BF16, 0.0, False, True, "flex", "rules or terms"),
        ("cuda", FP32, 0.0, True, True, "flex", "rules or terms"),
    ],
)
def test_the_fastest_path_that_can_do_it_is_taken_and_says_why(
    device: str,
    dtype: torch.dtype,
    dropout: float,
    rule: bool,
    term: bool,
    name: str,
    reason: str,
) -> None:
    asked = Attending(dropout, 64, rule=rule, term=term)
    path = asked.path(device, dtype, (9, 0))
    assert path.name == name
    assert reason in path.reason


@pytest.mark.parametrize(
    ("head_size", "dtype", "capability", "name", "reason"),
    [
        (8, BF16, (9, 0), "dense", "heads of 8"),
        (64, torch.float64, (9, 0), "dense", "in torch.float64"),
        (20, BF16, (9, 0), "flex", "heads of 20"),
        (264, BF16, (9, 0), "flex", "heads of 264"),
        (256, BF16, (8, 0), "varlen", "whole sequences"),
        (64, FP16, (7, 5), "flex", "compute capability 8.0"),
    ],
)
def test_heads_and_gpus_that_a_kernel_refuses_go_another_way(
    head_size: int, dtype: torch.dtype, capability: tuple[int, int], name: str, reason: str
) -> None:
    path = Attending(0.0, head_size).path("cuda", dtype, capability)
    assert path.name == name
    assert reason in path.reason


def test_rules_that_the_model_did_not_speak_of_are_refused() -> None:
    silent = Attending(0.0, 64)
    with pytest.raises(ValueError, match=r"Attending\(rule=True\)"):
        silent.within(batch(SEQUENCES), causal, like=LIKE)
    with pytest.raises(ValueError, match=r"Attending\(rule=True\)"):
        silent.over(causal, ROWS, LENGTH, LENGTH, like=LIKE)


def test_what_a_path_does_not_know_is_refused() -> None:
    given = heads(LENGTH, LENGTH)
    varlen = Varlen(boundaries(SEQUENCES), LENGTH)
    with pytest.raises(ValueError, match="varlen does not drop weights; set attention dropout"):
        varlen(*given, dropout=0.1)
    with pytest.raises(ValueError, match="varlen adds nothing to the scores; say term=True"):
        varlen(*given, term=Distances(3).term)
    with pytest.raises(ValueError, match="flex does not drop weights"):
        Flex(None)(*given, dropout=0.1)  # type: ignore[arg-type]
