from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pipeline.optim import Lamb, restore_settings, settings_of
from pipeline.optim.zero_layout import Fragment, find_partitions

CPU = torch.device("cpu")


@pytest.fixture
def alone() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def views(buffer: Tensor, *places: tuple[int, tuple[int, ...]]) -> list[nn.Parameter]:
    tensors = []
    for start, shape in places:
        tensor = nn.Parameter(torch.empty(shape))
        tensor.data = buffer[start : start + tensor.numel()].view(shape)
        tensors.append(tensor)
    return tensors


def test_fragments_of_a_buffer_follow_addresses_not_order(alone: dist.ProcessGroup) -> None:
    #  buffer   [ b b b b b b | - - | a a a | - ]      "a" is named first, "-" is padding
    buffer = torch.arange(12.0)
    a, b = views(buffer, (8, (3,)), (0, (2, 3)))
    wrapper = SimpleNamespace(
        bit16_groups=[[a, b]],
        parallel_partitioned_bit16_groups=[[buffer]],
        single_partition_of_fp32_groups=[buffer.clone()],
        real_dp_process_group=[alone],
    )
    (partition,) = find_partitions(wrapper, {a: "a", b: "b"}, CPU)
    assert partition.names == ("a", "b")
    assert partition.fragments == (Fragment(0, 6, tensor=1), Fragment(8, 3, tensor=0))


def test_fragments_of_stage_3_leave_out_the_padding_of_every_slice(
    alone: dist.ProcessGroup,
) -> None:
    def partitioned(values: Tensor, slice_length: int) -> nn.Parameter:
        tensor = nn.Parameter(torch.empty(0))
        tensor.ds_process_group, tensor.ds_numel = alone, values.numel()
        tensor.partition_numel = lambda: slice_length
        tensor.ds_tensor = torch.full((slice_length,), torch.nan)
        tensor.ds_tensor[: values.numel()] = values
        return tensor

    a, b = partitioned(torch.ones(3), 4), partitioned(torch.ones(5), 5)
    wrapper = SimpleNamespace(
        fp16_groups=[[a, b]],
        fp32_partitioned_groups_flat=[torch.cat([a.ds_tensor, b.ds_tensor])],
    )
    (partition,) = find_partitions(wrapper, {a: "a", b: "b"}, CPU)
    assert partition.fragments == (Fragment(0, 3, tensor=0), Fragment(4, 5, tensor=1))


def test_values_that_are_not_the_models_are_refused() -> None:
    tensor, copy = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.full((2, 3), 2.0))
    wrapper = SimpleNamespace(fp16_groups=[[tensor]], fp32_groups=[[copy]])
    with pytest.raises(ValueError, match="w: 0 of 6 elements lie where they were expected"):
        find_partitions(wrapper, {tensor: "w"}, CPU)


def test_a_tensor_missing_from_all_ranks_is_refused(alone: dist.ProcessGroup) -> None:
    buffer = torch.arange(4.0)
    inside, outside = views(buffer, (0, (4,)))[0], nn.Parameter(torch.ones(2))
    wrapper = SimpleNamespace(
        bf16_groups=[[inside, outside]],
        bf16_partitioned_groups=[[buffer]],
        fp32_groups_flat_partition=[buffer.clone()],
        real_dp_process_group=[alone],
    )
    with pytest.raises(ValueError, match="outside: 0 of 2 elements"):
        find_partitions(wrapper, {inside: "inside", outside: "outside"}, CPU)


def test_unknown_wrappers_and_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="SimpleNamespace keeps its tensors in an unknown way"):
        find_partitions(SimpleNamespace(), {}, CPU)
    stranger = nn.Parameter(torch.ones(2))
    wrapper = SimpleNamespace(fp16_groups=[[stranger]], fp32_groups=[[stranger]])
    with pytest.raises(ValueError, match="was not given"):
        find_partitions(wrapper, {}, CPU)


def test_once_bound_even_a_phantom_step_on_an_unknown_tensor_is_refused() -> None:
    tensor, master = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([tensor], lr=0.1)
    wrapper = SimpleNamespace(fp16_groups=[[tensor]], fp32_groups=[[master]])
    optimizer.bind(SimpleNamespace(optimizer=wrapper, device="cpu"))
    optimizer.param_groups[0]["params"] = [nn.Parameter(torch.ones(2, 2))]
    with pytest.raises(RuntimeError, match="does not know"):
        optimizer.step()


def test_settings_of_this_run_are_put_back_after_a_checkpoint_was_loaded() -> None:
    matrix, bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))
    groups = [{"params": [matrix]}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01)
    settings = settings_of(optimizer)
    for group in optimizer.param_groups:
        group.update(weight_decay=0.02, lr=0.5)
    restore_settings(optimizer, settings)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]
