"""One training step of ours: where its time goes, what the floor is, and what is left.

    python benchmarks/step_profile.py [--quick] [--json] [--size base] [--length 512] [--rows 2]

A step is forward and backward pass, clipping and LAMB, of the real classes on made-up ids: full
rows of two sequences each, 15% targets, dropout 0.1 unless told otherwise. fp32 with all cores on
a CPU, bf16 by autocast on a GPU.

Time is what the operations of a part took themselves by torch's profiler, on the device that
computes; the backward pass counts for the part whose forward pass it undoes. FLOPs are those of
:mod:`pipeline.flops` that are spent, the ceiling is measured in the same run, and the floor is the
time that the step's FLOPs would take at the ceiling.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from measure import tell
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from pipeline.batch import Batch, Targets
from pipeline.ceiling import measure_ceiling
from pipeline.flops import TOKENS, Cost, Meter, cost, fuses, targets, total
from pipeline.models.bert import Bert, BertConfig
from pipeline.nn.attention import SelfAttention
from pipeline.nn.blocks import save_memory
from pipeline.nn.embeddings import Embeddings
from pipeline.nn.feed_forward import FeedForward
from pipeline.nn.heads import TokenHead
from pipeline.objectives import build_objectives
from pipeline.objectives.masked_lm import MaskedLMConfig
from pipeline.objectives.task import PretrainingTask
from pipeline.optim import LambConfig, build_optimizer
from pipeline.precision import Precision, dtype
from pipeline.sections import Fp16Config
from pipeline.training.local_engine import LocalEngine

SIZES = {  # layers, width, heads
    "mini": (4, 256, 4),
    "small": (8, 512, 8),
    "base": (12, 768, 12),
    "large": (24, 1024, 16),
}
VOCABULARY = 30522
EMBEDDINGS, PRODUCTS, CORE, FEED_FORWARD, ELEMENTWISE, HEAD, OPTIMIZER, OTHER = PARTS = (
    "embeddings",
    "attention products",
    "attention core",
    "feed-forward products",
    "norms and elementwise",
    "head and loss",
    "optimizer",
    "other",
)
MARK = "part of the step: "


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="mini at 128, few steps")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rows", type=int, help="left out, 1,024 tokens on a CPU, 32,768 on a GPU")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=10 if gpu else 3, help="measured")
    options = parser.parse_args()
    if options.quick:
        options.size, options.length, options.steps = "mini", 128, 3
    if options.length < 2 or options.steps < 1:
        parser.error("--length is at least 2, --steps at least 1")
    rows = options.rows or max(1, (32768 if gpu else 1024) // options.length)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    precision: Precision = "bf16" if gpu else "fp32"
    engine = build(options.size, max(512, options.length), options.dropout, precision)
    made = batch(rows, options.length).to(engine.device)
    step = training_step(engine, made)
    step()  # states of the optimizer, and memory
    seconds = statistics.median(timed(step, engine.device) for _ in range(options.steps))
    ceiling = measure_ceiling(engine.device, dtype(precision))
    took = part_seconds(engine, step, options.steps)
    flops = part_flops(engine, batch(rows, options.length), dtype(precision))
    print(
        f"BERT-{options.size}, {rows} rows of {options.length}, {precision}, "
        f"dropout {options.dropout} on {engine.device.type}"
    )
    tell({}, report(took, flops, seconds, ceiling), as_json=options.json)


def build(size: str, positions: int, dropout: float, precision: Precision) -> LocalEngine:
    """The engine around a new model."""
    layers, width, heads = SIZES[size]
    model = Bert(
        BertConfig(
            family="bert",
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_layers=layers,
            num_heads=heads,
            intermediate_size=4 * width,
            max_positions=positions,
            dropout=dropout,
            attention_dropout=dropout,
            next_sentence=False,
        )
    )
    save_memory(model, "selective")  # as recipes do
    task = PretrainingTask(model, build_objectives((MaskedLMConfig(kind="masked_lm"),)))
    task.to("cuda" if torch.cuda.is_available() else "cpu")
    optimizer = build_optimizer(LambConfig(kind="lamb"), model)
    return LocalEngine(
        task, optimizer, precision=precision, gradient_clipping=1.0, fp16=Fp16Config()
    )


def batch(rows: int, length: int) -> Batch:
    """Rows of two sequences, without padding."""
    first = torch.arange(length) < length // 2
    positions = torch.arange(length) - torch.where(first, 0, length // 2)
    places = torch.randperm(rows * length)[: max(1, rows * length * 15 // 100)]
    return Batch(
        ids=torch.randint(VOCABULARY, (rows, length)),
        sequence_ids=torch.where(first, 1, 2).expand(rows, -1).contiguous(),
        positions=positions.expand(rows, -1).contiguous(),
        segment_ids=torch.zeros(rows, length, dtype=torch.int64),
        targets={"masked_lm": Targets(places, torch.randint(VOCABULARY, places.shape))},
    )


def training_step(engine: LocalEngine, made: Batch) -> Callable[[], None]:
    """Forward, backward, clipping, update."""
    counts = torch.tensor([float(len(made.targets["masked_lm"].labels))], device=engine.device)

    def step() -> None:
        engine.backward(made, counts)
        with record_function(MARK + OPTIMIZER):
            engine.step(1e-4)

    return step


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    synchronize(device)
    begun = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - begun


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def part_seconds(engine: LocalEngine, step: Callable[[], None], steps: int) -> dict[str, float]:
    """What each part took in a step, by the profiler; the mean of some steps."""
    activities = [ProfilerActivity.CPU]
    if engine.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with marked(engine.task), profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        synchronize(engine.device)
    on_gpu = engine.device.type == "cuda"
    parts = dict.fromkeys(PARTS, 0.0)
    for part, event in assigned(list(profiler.events())):
        own = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        parts[part] += own / 1e6 / steps
    return parts


def part_of(module: nn.Module) -> str | None:
    """What a module's own operations belong to; None where it only calls others."""
    match module:
        case PretrainingTask() | TokenHead():
            return HEAD
        case Bert():
            return OTHER
        case Embeddings():
            return EMBEDDINGS
        case SelfAttention():  # heads are cut apart and joined
            return CORE
        case FeedForward() | nn.LayerNorm() | nn.Dropout():
            return ELEMENTWISE
        case _:
            return None


@contextmanager
def marked(task: PretrainingTask) -> Iterator[None]:
    """Let modules name their part to the profiler while they compute."""
    parts: dict[nn.Module, str] = {}

    def mark(module: nn.Module, inherited: str) -> None:
        own = inherited if inherited in (EMBEDDINGS, HEAD) else part_of(module) or inherited
        if isinstance(module, nn.Linear):
            own = {CORE: PRODUCTS, ELEMENTWISE: FEED_FORWARD}.get(inherited, own)
        parts[module] = own
        for child in module.children():
            mark(child, own)

    parts[task] = HEAD
    mark(task.model, OTHER)
    with ExitStack() as hooks:
        open_marks: list[Any] = []
        for module, part in parts.items():

            def enter(module: nn.Module, given: Any, part: str = part) -> None:
                open_marks.append(record_function(MARK + part))
                open_marks[-1].__enter__()

            def leave(module: nn.Module, given: Any, made: Any) -> None:
                open_marks.pop().__exit__(None, None, None)

            hooks.callback(module.register_forward_pre_hook(enter).remove)
            hooks.callback(module.register_forward_hook(leave).remove)
        yield


def assigned(events: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each event of the host with its part.

    An operation of the forward pass that is to be differentiated has the number of the node that
    will do so: the last one with that number made the node.
    """
    own = [event for event in events if event.device_type == torch.autograd.DeviceType.CPU]
    nodes: dict[int, str] = {}
    for event in sorted(own, key=lambda event: event.time_range.start):
        if event.sequence_nr >= 0 and event.scope == 0 and (part := enclosing(event)):
            nodes[event.sequence_nr] = part
    for event in own:
        yield enclosing(event) or nodes.get(undone(event), OTHER), event


def enclosing(event: Any) -> str | None:
    """The part that the innermost mark around an event names."""
    while event is not None:
        if event.name.startswith(MARK):
            return str(event.name.removeprefix(MARK))
        event = event.cpu_parent
    return None


def undone(event: Any) -> int:
    """The number of the node of the backward pass that an event is inside of; -1 for none."""
    while event is not None:
        for one in (event, *event.cpu_children):
            if one.scope == 1 and one.sequence_nr >= 0:
                return int(one.sequence_nr)
        event = event.cpu_parent
    return -1


def part_flops(engine: LocalEngine, made: Batch, lower: torch.dtype) -> dict[str, int]:
    """FLOPs that are spent on each part."""
    model = engine.task.model
    assert isinstance(model, Bert)
    modules = list(model.blocks.modules())
    attention = total((one for one in modules if isinstance(one, SelfAttention)), TOKENS)
    costs = {
        PRODUCTS: Cost(forward=Counter({TOKENS.places: attention.forward[TOKENS.places]})),
        CORE: Cost(
            forward=Counter({TOKENS.pairs: attention.forward[TOKENS.pairs]}),
            scores=attention.scores,
        ),
        FEED_FORWARD: total((one for one in modules if isinstance(one, FeedForward)), TOKENS),
        HEAD: cost(model.heads["masked_lm"], targets("masked_lm")),
    }
    path, fused = model.attention_path(engine.device, lower).name, fuses(model, engine.device)
    return {part: Meter(own, path, fused=fused)(made).spent for part, own in costs.items()}


def report(
    took: Mapping[str, float], flops: Mapping[str, int], seconds: float, ceiling: float
) -> dict[str, float]:
    """Print the table; returns its figures."""
    whole, floor = sum(took.values()), sum(flops.values()) / ceiling
    print(f"{'part':<24}{'ms':>10}{'share':>8}{'GFLOP':>10}{'of ceiling':>12}{'floor, ms':>11}")
    figures = defaultdict[str, float](float)
    for part in sorted(took, key=lambda part: -took[part]):
        own = flops.get(part, 0)
        reached = f"{own / took[part] / ceiling:>12.0%}" if own and took[part] else " " * 12
        print(
            f"{part:<24}{took[part] * 1e3:>10,.1f}{took[part] / whole:>8.1%}"
            f"{own / 1e9:>10,.1f}{reached}{own / ceiling * 1e3:>11,.1f}"
        )
        figures[f"ms.{part.replace(' ', '_')}"] = took[part] * 1e3
    print(
        f"the step takes {seconds * 1e3:,.1f} ms (its operations {whole * 1e3:,.1f}), its floor is "
        f"{floor * 1e3:,.1f}: {floor / seconds:.0%} of the ceiling of {ceiling / 1e12:,.2f} TFLOP/s"
    )
    slower = {part: took[part] - own / ceiling for part, own in flops.items()}
    without = whole - sum(took[part] for part in flops)
    print(
        f"left over the floor: {sum(slower.values()) * 1e3:,.1f} ms in parts that multiply, "
        f"{without * 1e3:,.1f} ms in parts that do not"
    )
    return {
        **figures,
        "step_ms": seconds * 1e3,
        "floor_ms": floor * 1e3,
        "ceiling_gflops": ceiling / 1e9,
        "share_of_ceiling_percent": 100 * floor / seconds,
    }


if __name__ == "__main__":
    main()
