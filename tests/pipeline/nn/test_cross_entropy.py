"""Product and loss in one, beside plain logits and torch's cross-entropy; float64 is the judge."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from pipeline.batch import IGNORED
from pipeline.nn.cross_entropy import Summed, all_scores, linear_cross_entropy
from pipeline.nn.heads import TiedDecoder
from pipeline.nn.scores import VocabularyScores, logits, silenced

TARGETS, WIDTH, CLASSES = 37, 24, 131


class Case(NamedTuple):
    hidden: Tensor
    weight: Tensor
    bias: Tensor
    labels: Tensor

    def to(self, dtype: torch.dtype) -> Case:
        """Leaves of another precision."""
        leaves = (one.detach().to(dtype).requires_grad_() for one in self[:3])
        return Case(*leaves, self.labels)

    def gradients(self, total: Tensor) -> list[Tensor]:
        """Of a loss scaled as a step's mean is."""
        return list(torch.autograd.grad(total * 0.125, self[:3]))


def case(seed: int = 0, *, targets: int = TARGETS, scale: float = 1.0) -> Case:
    torch.manual_seed(seed)
    labels = torch.randint(CLASSES, (targets,))
    labels[::5] = IGNORED
    return Case(
        scale * torch.randn(targets, WIDTH, dtype=torch.float64),
        torch.randn(CLASSES, WIDTH, dtype=torch.float64) / WIDTH**0.5,
        torch.randn(CLASSES, dtype=torch.float64),
        labels,
    ).to(torch.float64)


def plain(one: Case) -> Summed:
    """All logits, then torch's loss, as a head without chunks computes them."""
    scores = F.linear(one.hidden, one.weight, one.bias)
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    total = F.cross_entropy(exact, one.labels, ignore_index=IGNORED, reduction="sum")
    return Summed(total, (scores.argmax(-1) == one.labels).sum().to(exact.dtype))


def error(found: list[Tensor], judge: list[Tensor]) -> float:
    """The largest, relative to each tensor's largest value."""
    return max(
        float((one.double() - right).abs().max() / right.abs().max())
        for one, right in zip(found, judge, strict=True)
    )


@pytest.mark.parametrize("chunk", [1, 3, 1000, None])
@pytest.mark.parametrize("multiple", [1, 8, 64, None])
def test_loss_and_gradients_are_those_of_plain_logits(chunk: int | None, multiple: int) -> None:
    one = case()
    judge = plain(one)
    found = linear_cross_entropy(*one, chunk=chunk, multiple=multiple)
    assert found.correct == judge.correct > 0
    assert found.total.item() == pytest.approx(judge.total.item(), rel=1e-14)
    assert error(one.gradients(found.total), one.gradients(judge.total)) < 1e-14


@pytest.mark.parametrize("multiple", [1, 8, 64, None])
def test_logits_are_those_of_the_plain_product(multiple: int | None) -> None:
    one = case()
    scores = all_scores(*one[:3], multiple=multiple)
    assert scores.shape == (TARGETS, CLASSES)
    judge = F.linear(*one[:3])
    torch.testing.assert_close(scores, judge, rtol=1e-14, atol=1e-14)
    given = torch.randn_like(judge)
    found = torch.autograd.grad(scores, one[:3], given)
    right = torch.autograd.grad(judge, one[:3], given)
    assert error(list(found), list(right)) < 1e-14


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.float32, 3e-7), (torch.bfloat16, 4e-3), (torch.float16, 6e-4)]
)
@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_no_worse_than_that_of_plain_logits(
    dtype: torch.dtype, expected: float, seed: int
) -> None:
    """In each tensor's gradient, against float64 from the same rounded operands."""
    one = case(seed).to(dtype)
    exact = one.to(torch.float64)
    judge, other, found = plain(exact), plain(one), linear_cross_entropy(*one, chunk=10)
    right, theirs = exact.gradients(judge.total), one.gradients(other.total)
    ours = one.gradients(found.total)
    assert [tensor.dtype for tensor in ours] == [dtype] * 3
    assert found.total.dtype == torch.float32
    off = [abs((sums.total / judge.total).item() - 1) for sums in (found, other)]
    assert off[0] <= 1.1 * off[1] + 1e-6
    for mine, plainly, exactly in zip(ours, theirs, right, strict=True):
        assert error([mine], [exactly]) <= max(1.5 * error([plainly], [exactly]), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_autocast_are_summed_and_arrive_in_fp32(dtype: torch.dtype) -> None:
    one = case().to(torch.float32)
    exact = one.to(torch.float64)
    right = exact.gradients(plain(exact).total)
    with torch.autocast("cpu", dtype):
        found, other = linear_cross_entropy(*one, chunk=10), plain(one)
    ours, theirs = one.gradients(found.total), one.gradients(other.total)
    assert [tensor.dtype for tensor in ours] == [torch.float32] * 3
    for mine, plainly, exactly in zip(ours, theirs, right, strict=True):
        assert error([mine], [exactly]) <= 1.1 * error([plainly], [exactly])
    # The bias is summed in fp32 from probabilities in fp32: only the scores are rounded.
    assert (ours[2] != ours[2].to(dtype).float()).any(), "more digits than the products have"


@pytest.mark.parametrize("multiple", [1, 64])
def test_large_products_are_the_same_whoever_multiplies(multiple: int) -> None:
    """On some CPUs another library does those of more than a million multiplications."""
    torch.manual_seed(0)
    one = Case(
        torch.randn(150, 64), torch.randn(1031, 64) / 8, torch.randn(1031), torch.arange(150)
    ).to(torch.float32)
    exact = one.to(torch.float64)
    judge, found = plain(exact), linear_cross_entropy(*one, multiple=multiple, chunk=70)
    assert found.correct == judge.correct
    assert found.total.item() == pytest.approx(judge.total.item(), rel=1e-6)
    assert error(one.gradients(found.total), exact.gradients(judge.total)) < 3e-6


def test_half_precision_keeps_gradients_of_unlikely_classes() -> None:
    """Of 30,522 classes most have probabilities below the normal numbers of fp16."""
    torch.manual_seed(0)
    classes = 30522
    hidden = torch.randn(32, 16)
    weight, bias = torch.randn(classes, 16) * 0.3, torch.zeros(classes)
    one = Case(hidden, weight, bias, torch.randint(classes, (32,)))
    rounded = one.to(torch.float16)
    exact = rounded.to(torch.float64)
    right = exact.gradients(plain(exact).total)[1]
    with torch.autocast("cpu", torch.float16):
        single = rounded.to(torch.float32)
        found = single.gradients(linear_cross_entropy(*single).total)[1].double()
    rare = torch.ones(classes, dtype=torch.bool)
    rare[one.labels] = False
    off = (found - right)[rare].norm() / right[rare].norm()
    # Measured: 7.9e-4; plain logits have 1.5e-3, and 7.8e-4 with a loss scaled by 2048.
    assert off < 2e-3


@pytest.mark.parametrize("chunk", [3, 1000])
@pytest.mark.parametrize("content", [math.inf, math.nan])
def test_ignored_targets_add_exactly_nothing(chunk: int, content: float) -> None:
    one = case()
    kept = one.labels != IGNORED
    with torch.no_grad():
        one.hidden[~kept] = content
    found = linear_cross_entropy(*one, chunk=chunk, multiple=8)
    gradients = one.gradients(found.total)
    few = Case(*one[:3], one.labels[kept])._replace(hidden=one.hidden[kept])
    alone = linear_cross_entropy(*few, chunk=chunk, multiple=8)
    assert found.total.item() == pytest.approx(alone.total.item(), rel=1e-14)
    assert found.correct == alone.correct
    right = one.gradients(alone.total)
    assert (gradients[0][~kept] == 0).all()
    assert error(gradients, [right[0].nan_to_num(0), *right[1:]]) < 1e-14


@pytest.mark.parametrize("targets", [0, 5])
def test_nothing_to_predict_gives_zero(targets: int) -> None:
    one = case(targets=targets)
    found = linear_cross_entropy(*one._replace(labels=torch.full((targets,), IGNORED)), chunk=2)
    assert found == (0, 0)
    assert all((gradient == 0).all() for gradient in one.gradients(found.total))


@pytest.mark.parametrize("silent", [True, False])
def test_silence_makes_gradients_exactly_zero_even_of_what_is_not_finite(silent: bool) -> None:
    one = case()
    with torch.no_grad():
        one.hidden[1, 2] = math.inf
    found = linear_cross_entropy(*one, silent=torch.tensor(silent))
    assert not found.total.isfinite()
    gradients = one.gradients(found.total)
    assert [bool(gradient.isfinite().all()) for gradient in gradients] == [silent] * 3
    assert all((gradient == 0).all() for gradient in gradients) == silent


def test_silence_that_is_off_changes_nothing() -> None:
    one = case()
    loud = linear_cross_entropy(*one, silent=torch.tensor(False))
    assert error(one.gradients(loud.total), one.gradients(plain(one).total)) < 1e-14


def test_without_gradients_the_sums_are_the_same() -> None:
    one = case().to(torch.float32)
    found = linear_cross_entropy(*one, chunk=3)
    with torch.no_grad():
        quiet = linear_cross_entropy(*one, chunk=3)
    assert quiet == found
    assert not quiet.total.requires_grad
    assert found.total.requires_grad
    assert not found.correct.requires_grad


@pytest.mark.parametrize("label", [CLASSES, CLASSES + 2, -1, -101])
@pytest.mark.parametrize("multiple", [1, 64])
def test_labels_that_are_no_class_fail(label: int, multiple: int) -> None:
    """Those too that would fall on a class that only fills up the product."""
    one = case()
    one.labels[3] = label
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        linear_cross_entropy(*one, multiple=multiple)


@pytest.mark.parametrize("scale", [1e-30, 1e3, 1e6])
def test_scores_may_be_small_or_large(scale: float) -> None:
    """Exponentials of these overflow in fp32, and vanish beside the largest."""
    one = case(scale=scale).to(torch.float32)
    exact = one.to(torch.float64)
    judge, found = plain(exact), linear_cross_entropy(*one, chunk=7, multiple=8)
    assert found.total.item() == pytest.approx(judge.total.item(), rel=2e-6)
    # Measured: 4.6e-7, 1.2e-4 and 5.5e-8; scores of 1e3 are themselves rounded by 1e-4.
    bound = 1e-3 if scale == 1e3 else 2e-6
    assert error(one.gradients(found.total), exact.gradients(judge.total)) < bound


def test_the_logarithm_survives_beside_large_scores() -> None:
    """Two classes tie far from zero: log 2, which fp32 at 2^20 resolves to 1/8 only."""
    hidden = torch.full((1, 1), 2.0**20)
    weight, bias = torch.tensor([[1.0], [1.0], [0.5]]), torch.zeros(3)
    found = linear_cross_entropy(hidden, weight, bias, torch.tensor([1]))
    assert float(found.total) == pytest.approx(math.log(2), rel=1e-6)


def test_ties_go_to_the_class_that_argmax_takes() -> None:
    hidden, weight, bias = torch.zeros(5, 2), torch.zeros(5, 2), torch.zeros(5)
    first = int(F.linear(hidden, weight, bias)[0].argmax())
    for multiple in (1, 8):
        found = linear_cross_entropy(hidden, weight, bias, torch.arange(5), multiple=multiple)
        assert found.correct == 1
        only = torch.tensor([first])
        assert linear_cross_entropy(hidden[:1], weight, bias, only, multiple=multiple).correct == 1


class Watched(TorchDispatchMode):
    """Looks at the results of all operations."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.waits: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        results = function(*args, **(kwargs or {}))
        for result in results if isinstance(results, (tuple, list)) else [results]:
            if isinstance(result, Tensor):
                self.largest = max(self.largest, result.numel())
        if function.overloadpacket in (
            torch.ops.aten._local_scalar_dense,
            torch.ops.aten.nonzero,
            torch.ops.aten.equal,
        ):
            self.waits.append(str(function))
        return results


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("autocast", [False, True])
def test_all_scores_never_exist_and_the_host_never_waits(multiple: int, autocast: bool) -> None:
    targets, classes, chunk = 640, 2001, 32
    hidden, weight = torch.randn(targets, 8).requires_grad_(), torch.randn(classes, 8)
    labels = torch.randint(classes, (targets,)).masked_fill_(torch.rand(targets) < 0.1, IGNORED)
    one = Case(hidden, weight.requires_grad_(), torch.zeros(classes, requires_grad=True), labels)
    with Watched() as watched, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        silent = torch.tensor(False)
        found = linear_cross_entropy(*one, silent=silent, multiple=multiple, chunk=chunk)
        (found.total * 0.1).backward()
    assert watched.waits == []
    filled = -(-classes // multiple) * multiple
    assert watched.largest == chunk * filled, "the scores of a chunk are the largest of all"
    with Watched() as watched:
        plain(one).total.backward()
    assert watched.largest == targets * classes, "which this test would see"


def test_a_head_may_be_computed_again_in_the_backward_pass() -> None:
    one = case().to(torch.float32)
    kept = linear_cross_entropy(*one, chunk=5)
    again = checkpoint(lambda: linear_cross_entropy(*one, chunk=5), use_reentrant=False)
    assert again.total == kept.total
    for first, second in zip(one.gradients(kept.total), one.gradients(again.total), strict=True):
        assert torch.equal(first, second)


def test_gradients_of_gradients_are_refused() -> None:
    one = case()
    total = linear_cross_entropy(*one).total.square()
    (first,) = torch.autograd.grad(total, one.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_the_table_of_words_gets_the_gradients_of_both_its_uses() -> None:
    torch.manual_seed(0)
    words = nn.Embedding(CLASSES, WIDTH).double()
    decoder = TiedDecoder(words).double()
    ids, labels = torch.randint(CLASSES, (2, TARGETS))
    scores = VocabularyScores(decoder, words(ids))
    scores.cross_entropy(labels).total.backward()
    found, words.weight.grad = words.weight.grad, None
    F.cross_entropy(
        logits(VocabularyScores(decoder, words(ids))), labels, reduction="sum"
    ).backward()
    assert found is not None
    assert error([found], [words.weight.grad]) < 1e-14


@pytest.mark.parametrize("silent", [True, False])
def test_silenced_scores_have_the_same_gradients_as_logits_and_as_loss(silent: bool) -> None:
    torch.manual_seed(0)
    decoder = TiedDecoder(nn.Embedding(CLASSES, WIDTH)).double()
    hidden = torch.randn(TARGETS, WIDTH, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(CLASSES, (TARGETS,))
    scores = silenced(VocabularyScores(decoder, hidden), torch.tensor(silent))
    assert isinstance(scores, VocabularyScores)
    wanted = [hidden, *decoder.parameters()]
    found = torch.autograd.grad(scores.cross_entropy(labels).total, wanted)
    right = torch.autograd.grad(F.cross_entropy(logits(scores), labels, reduction="sum"), wanted)
    for mine, other in zip(found, right, strict=True):
        assert bool((other == 0).all()) == silent
        torch.testing.assert_close(mine, other, rtol=1e-13, atol=1e-13)
