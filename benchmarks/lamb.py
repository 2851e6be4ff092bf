"""LAMB: how exact beside the usual one under ZeRO, and what a step costs beside AdamW's.

    python benchmarks/lamb.py [--quick] [--json]

- Error: five steps on two flat partitions, as ZeRO cuts them, against LAMB in fp64. The usual LAMB
  takes the partitions for tensors.
- Cost: an optimizer step on the tensors of BERT-base (110M elements) beside torch's fused AdamW,
  with one thread, in full also with two; LAMB tensor by tensor; FusedLamb where there is CUDA.
- In full also ``engine.step()`` on two ranks at ZeRO stages 1, 2 and 3 beside AdamW.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from measure import alternate, tell
from torch import Tensor, nn

from pipeline.optim import Lamb

EPS, DECAY = 1e-6, 0.01
LAYER = [(768, 768), (768,)] * 4 + [(768,)] * 2 + [(3072, 768), (3072,), (768, 3072), *[(768,)] * 3]
BERT_BASE = [
    *[(30522, 768), (512, 768), (2, 768), (768,), (768,)],
    *LAYER * 12,
    *[(768, 768), (768,), (768, 768), (768,), (768,), (768,), (30522,)],
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no engine")
    parser.add_argument("--json", action="store_true", help="one object on the last line")
    options = parser.parse_args()
    torch.manual_seed(0)
    naive, ours = errors()
    ratios = {"naive_lamb_error_vs_ours": naive / ours}
    figures = {"error_ours_e-9": ours * 1e9, "error_naive": naive}
    for threads in (1,) if options.quick else (1, 2):
        torch.set_num_threads(threads)
        seconds = step_seconds(rounds=5 if options.quick else 9)
        suffix = "" if threads == 1 else f"_{threads}_threads"
        ratios[f"lamb_cost_vs_adamw_fused{suffix}"] = seconds["lamb"] / seconds["adamw"]
        ratios[f"per_tensor_lamb_cost_vs_adamw_fused{suffix}"] = seconds["loop"] / seconds["adamw"]
        if "fused_lamb" in seconds:
            ratios[f"lamb_cost_vs_fused_lamb{suffix}"] = seconds["lamb"] / seconds["fused_lamb"]
        figures |= {f"step_ms_{name}{suffix}": 1000 * took for name, took in seconds.items()}
    if not torch.cuda.is_available():
        print("FusedLamb: not available, it needs CUDA")
    if not options.quick:
        for stage, costs in engine_seconds(rounds=15).items():
            ratios[f"engine_step_cost_vs_adamw_stage_{stage}"] = costs["lamb"] / costs["adamw"]
            figures |= {f"engine_step_ms_{n}_stage_{stage}": 1000 * s for n, s in costs.items()}
    tell(ratios, figures, as_json=options.json)


class LoopLamb(torch.optim.Optimizer):
    """LAMB as it is usually written: whatever it is handed is a tensor, one after the other."""

    def __init__(self, params: Sequence[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for w in group["params"]:
                state = self.state[w]
                m = state.setdefault("m", torch.zeros_like(w))
                v = state.setdefault("v", torch.zeros_like(w))
                m.mul_(0.9).add_(w.grad, alpha=0.1)
                v.mul_(0.999).addcmul_(w.grad, w.grad, value=0.001)
                u = m / (v.sqrt() + EPS) + DECAY * w
                w_norm, u_norm = float(w.norm()), float(u.norm())
                ratio = w_norm / u_norm if w_norm > 0 and u_norm > 0 else 1.0
                w.sub_(u, alpha=group["lr"] * ratio)


def errors(steps: int = 5, lr: float = 0.01) -> tuple[float, float]:
    """The largest error of a tensor: of the usual LAMB on two flat partitions, and of ours."""
    shapes = [(500, 64), (64, 256), (256,), (256, 64), (64,)]
    start = [torch.randn(shape) * 0.05 * 2**number for number, shape in enumerate(shapes)]
    gradients = [[torch.randn(shape) for shape in shapes] for _ in range(steps)]
    exact = [w.double() for w in start]
    moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in exact]
    ours = [nn.Parameter(w.clone()) for w in start]
    optimizer = Lamb(ours, lr=lr, weight_decay=DECAY, eps=EPS)
    flat = torch.cat([w.flatten() for w in start])
    halves = [nn.Parameter(half.clone()) for half in flat.chunk(2)]
    usual = LoopLamb(halves, lr=lr)
    for step in gradients:
        for number, g in enumerate(step):
            w, (m, v) = exact[number], moments[number]
            m.mul_(0.9).add_(0.1 * g.double())
            v.mul_(0.999).add_(0.001 * g.double().square())
            u = m / (v.sqrt() + EPS) + DECAY * w
            w -= lr * (w.norm() / u.norm()) * u
            ours[number].grad = g
        for half, g in zip(halves, torch.cat([g.flatten() for g in step]).chunk(2), strict=True):
            half.grad = g
        optimizer.step()
        usual.step()
    pieces = torch.cat([half.detach() for half in halves]).split([math.prod(s) for s in shapes])

    def error(found: Sequence[Tensor]) -> float:
        return max(
            float((f.detach().double().flatten() - e.flatten()).norm() / e.norm())
            for f, e in zip(found, exact, strict=True)
        )

    return error(pieces), error(ours)


def step_seconds(*, rounds: int) -> dict[str, float]:
    """Median seconds of a step on the tensors of BERT-base, alternating."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    optimizers = {
        "adamw": torch.optim.AdamW(tensors(device), lr=1e-4, fused=True),
        "lamb": Lamb(tensors(device), lr=1e-4),
        "loop": LoopLamb(tensors(device), lr=1e-4),
    }
    if device == "cuda":
        from deepspeed.ops.lamb import FusedLamb

        optimizers["fused_lamb"] = FusedLamb(tensors(device), lr=1e-4)

    def step(optimizer: torch.optim.Optimizer) -> Callable[[], int]:
        def run() -> int:
            optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()
            return 1

        return run

    for optimizer in optimizers.values():  # compile, and make the moments
        step(optimizer)()
    medians, _ = alternate(
        {n: step(optimizer) for n, optimizer in optimizers.items()}, rounds=rounds
    )
    return {name: 1 / speed for name, speed in medians.items()}


def tensors(device: str) -> list[nn.Parameter]:
    parameters = [nn.Parameter(0.02 * torch.randn(shape, device=device)) for shape in BERT_BASE]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return parameters


def engine_seconds(*, rounds: int) -> dict[int, dict[str, float]]:
    """Median seconds of ``engine.step()`` on two ranks, by stage and optimizer, alternating."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = (Path(directory), rounds)
        torch.multiprocessing.spawn(engine_rank, args=arguments, nprocs=2)
        result: dict[int, dict[str, float]] = torch.load(Path(directory) / "seconds.pt")
    return result


def engine_rank(rank: int, directory: Path, rounds: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    if not torch.cuda.is_available():
        os.environ["DS_ACCELERATOR"] = "cpu"
    torch.set_num_threads(1)
    import deepspeed

    from pipeline.training.start import leave_process_group

    deepspeed.utils.logger.setLevel("ERROR")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{directory / 'store'}", rank=rank, world_size=2
    )
    deepspeed.init_distributed("gloo", dist_init_required=False, verbose=False)
    medians = {}
    for stage in (1, 2, 3):
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_clipping": 1.0,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage},
        }
        engines = {}
        for name in ("adamw", "lamb"):
            layers = [
                layer for _ in range(8) for layer in (nn.Linear(768, 3072), nn.Linear(3072, 768))
            ]
            model = nn.Sequential(*layers)  # 38M elements
            optimizer: torch.optim.Optimizer
            if name == "lamb":
                optimizer = Lamb(model.parameters(), lr=1e-4)
            else:
                optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
            engines[name], *_ = deepspeed.initialize(
                model=model, optimizer=optimizer, config=config, dist_init_required=False
            )
            if isinstance(optimizer, Lamb):
                optimizer.bind(engines[name])
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for turn in range(rounds + 2):
            for name, engine in engines.items():
                engine.backward(engine(torch.randn(1, 768, device=engine.device)).square().mean())
                torch.distributed.barrier()
                begun = time.perf_counter()
                engine.step()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - begun)
        medians[stage] = {name: statistics.median(values) for name, values in seconds.items()}
        for engine in engines.values():
            engine.destroy()
    if rank == 0:
        torch.save(medians, directory / "seconds.pt")
    torch.distributed.barrier()
    leave_process_group()


if __name__ == "__main__":
    main()
