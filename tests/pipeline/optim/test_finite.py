import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pipeline.optim.finite import FiniteOnly, guarding


class AdamW(FiniteOnly, torch.optim.AdamW):
    pass


def tensors() -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape)) for shape in ((30, 40), (7,), (0, 3))]
    for tensor in made:
        tensor.grad = torch.randn(tensor.shape)
    return made


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float) -> None:
    parameters = tensors()
    optimizer = AdamW(parameters, lr=0.1, fused=True)
    assert optimizer.applied
    optimizer.step()
    assert optimizer.applied
    before = copy.deepcopy([list(parameters), optimizer.state_dict()])
    parameters[1].grad[3] = bad
    optimizer.step()
    assert not optimizer.applied
    assert all(map(torch.equal, before[0], parameters))
    for old, new in zip(before[1]["state"].values(), optimizer.state.values(), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    parameters[1].grad[3] = 1.0
    optimizer.step()
    assert optimizer.applied
    assert not torch.equal(before[0][1], parameters[1])


def test_finite_steps_are_those_of_the_library() -> None:
    ours, theirs = tensors(), tensors()
    mine, yours = AdamW(ours, lr=0.1), torch.optim.AdamW(theirs, lr=0.1)
    for _ in range(3):
        mine.step()
        yours.step()
    assert all(map(torch.equal, ours, theirs))


def test_a_closure_is_asked_before_its_gradients_are_looked_at() -> None:
    (tensor,) = parameters = [nn.Parameter(torch.ones(3))]
    optimizer = AdamW(parameters, lr=0.1)

    def closure() -> float:
        loss = (tensor * torch.nan).sum()
        loss.backward()
        return float(loss.detach())

    assert math.isnan(optimizer.step(closure))
    assert not optimizer.applied


def test_misspelt_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        AdamW(tensors(), learning_rate=0.1)


def test_the_phantom_step_within_initialize_is_not_counted_and_others_are_refused() -> None:
    optimizer = AdamW(tensors(), lr=0.1)
    (copied,) = copies = [nn.Parameter(torch.ones(2))]
    optimizer.param_groups[0]["params"] = copies
    copied.grad = torch.zeros(2)
    optimizer.step()
    assert not optimizer.state
    copied.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match=r"optimizer\.bind\(engine\)"):
        optimizer.step()


def test_a_wrapper_that_discarded_the_step_is_believed() -> None:
    optimizer = AdamW(tensors(), lr=0.1)
    wrapper = SimpleNamespace(overflow=False)
    optimizer.bind(SimpleNamespace(optimizer=wrapper, device="cpu"))
    assert optimizer.applied
    wrapper.overflow = True
    assert not optimizer.applied


@pytest.mark.parametrize(
    ("checked", "normed", "dtype", "guards"),
    [
        (True, False, torch.bfloat16, True),
        (False, True, torch.float32, True),
        (False, True, torch.bfloat16, False),
        (False, False, torch.float32, False),
    ],
)
def test_a_wrapper_that_was_told_not_to_look_is_refused(
    checked: bool, normed: bool, dtype: torch.dtype, guards: bool
) -> None:
    wrapper = SimpleNamespace(check_grad_overflow=checked, compute_grad_norm=normed, dtype=dtype)
    if guards:
        assert guarding(wrapper) is wrapper
    else:
        with pytest.raises(ValueError, match="check_grad_overflow"):
            guarding(wrapper)
