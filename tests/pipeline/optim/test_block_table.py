import logging
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.optim import blocks
from pipeline.optim.blocks import Blocks, BlockTable, compiled
from pipeline.optim.zero_layout import Fragment, Partition


@pytest.fixture(autouse=True)
def rows_of_four(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 4)
        patch.setattr(blocks, "CRUMB", 2)
        patch.setattr(blocks, "ALL_CRUMBS", 8)
        yield


def total(values: Tensor, factor: Tensor) -> Tensor:
    return torch.stack([(values * factor).sum(1), torch.ones(len(values))], dim=1)


def subtract(values: Tensor, amount: Tensor) -> None:
    values.sub_(amount)


def test_rows_belong_to_a_tensor_and_what_is_left_is_crumbs() -> None:
    #   | a a a a | a a a b | b b b b | b - - - | -      a: 7 elements, b: 6, the rest is padding
    flat = torch.arange(17.0)
    flat[13:] = torch.nan
    partition = Partition(flat, ("a", "b"), (Fragment(0, 7, 0), Fragment(7, 6, 1)))
    table = BlockTable([partition])
    assert table.rows([[flat]])[0][0].shape == (4, 4)
    short, single = (kind.copy([[flat]])[0].tolist() for kind in table.crumbs)
    assert short == [[4.0, 5.0]]
    assert single == [[6.0], [7.0], [12.0]]
    cut = Blocks(table, [[flat]])
    sums = cut.sums(total, torch.tensor([[1.0], [10.0]]))
    assert sums[:, 0].tolist() == [sum(range(7)), 10 * sum(range(7, 13))]
    assert sums[:, 1].tolist() == [3, 3]  # rows of any width
    cut.update(subtract, torch.tensor([[100.0], [0.0]]), changed=1)
    assert flat[:7].tolist() == [value - 100.0 for value in range(7)]
    assert flat[7:13].tolist() == list(range(7, 13))
    assert flat[13:].isnan().all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 23), max_size=4), st.integers(0, 9)),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from([8, 64]),
)
def test_every_element_of_a_tensor_counts_once_wherever_it_lies(
    layout: list[tuple[list[int], int]], all_crumbs: int
) -> None:
    blocks.ALL_CRUMBS = all_crumbs
    partitions, expected = [], []
    for number, (lengths, padding) in enumerate(layout):
        flat = torch.rand(sum(lengths) + padding, dtype=torch.float64)
        fragments, start = [], 0
        for tensor, length in enumerate(lengths):
            fragments.append(Fragment(start, length, tensor))
            expected.append(flat[start : start + length].sum())
            start += length
        flat[start:] = torch.nan
        names = tuple(f"{number}.{tensor}" for tensor in range(len(lengths)))
        partitions.append(Partition(flat, names, tuple(fragments)))
    flats = [[partition.flat] for partition in partitions]
    cut = Blocks(BlockTable(partitions), flats)
    factors = torch.arange(1.0, len(expected) + 1, dtype=torch.float64)[:, None]
    sums = cut.sums(total, factors)[:, 0]
    torch.testing.assert_close(sums, torch.tensor(expected, dtype=torch.float64) * factors[:, 0])
    before = [flat.clone() for (flat,) in flats]
    cut.update(subtract, factors, changed=1)
    for partition, old in zip(partitions, before, strict=True):
        for fragment in partition.fragments:
            moved = float(old[fragment.start] - partition.flat[fragment.start])
            name = partition.names[fragment.tensor]
            number = [name for p in partitions for name in p.names].index(name)
            assert moved == pytest.approx(number + 1)
            span = fragment.span
            assert torch.allclose(partition.flat[span], old[span] - (number + 1))


def test_tensors_of_two_precisions_are_refused() -> None:
    partitions = [
        Partition(torch.zeros(3, dtype=dtype), ("w",), (Fragment(0, 3, 0),))
        for dtype in (torch.float32, torch.float64)
    ]
    with pytest.raises(ValueError, match="one precision"):
        BlockTable(partitions)


def test_without_a_compiler_the_rule_runs_as_it_stands_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(module: object, inputs: object) -> None:
        raise RuntimeError("no compiler here")

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda rule, **how: compile_(rule, backend=broken))
    rows, factor = torch.ones(3, 4), torch.full((3, 1), 2.0)
    with caplog.at_level(logging.WARNING):
        compiled.cache_clear()
        run = compiled(total)
        found = [run(rows, factor) for _ in range(2)]
    assert all(torch.equal(sums, total(rows, factor)) for sums in found)
    compiled.cache_clear()
    (message,) = [r.message for r in caplog.records if r.name == "pipeline.optim.blocks"]
    assert "no compiler here" in message
