"""Every member of DeepSpeed's that this code touches, one by one.

None of them is promised by DeepSpeed. Where a new version fails here, the message says what has to
be found anew before the range of supported versions may grow.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import decode, train_step
from spawned import spawn

from configs.schema import ConfigError
from pipeline.training.deepspeed_options import SUPPORTED_DEEPSPEED, check_deepspeed_version

KINDS: Mapping[str, tuple[str, ...]] = {
    "stage 0": ("deepspeed.zero_stage=0",),
    "stage 1": ("deepspeed.zero_stage=1",),
    "stage 1, bf16": ("deepspeed.zero_stage=1", "train.precision=bf16"),
    "stage 1, fp16": ("deepspeed.zero_stage=1", "train.precision=fp16"),
    "stage 2": ("deepspeed.zero_stage=2",),
    "stage 3": ("deepspeed.zero_stage=3",),
}
WRAPPED = tuple(kind for kind in KINDS if kind != "stage 0")

ENGINE = {
    "device": "where batches and sums go",
    "optimizer": "the wrapper around our optimizer",
    "set_train_batch_size": "accumulation follows the number of micro-batches",
    "micro_steps": "counts micro-batches of a step; set back where a phase begins",
    "backward": "gradients are scaled, accumulated and sent",
    "step": "clips, updates and clears at the last micro-batch",
    "get_global_grad_norm": "the norm that is logged",
    "was_step_applied": "whether an overflow kept the step from being applied",
    "fp16_enabled": "whether there is a loss scale",
    "dynamic_loss_scale": "whether it moves",
    "dynamic_loss_scale_args": "its smallest value, as min_scale",
    "save_checkpoint": "writes every rank's part",
    "load_checkpoint": "reads it back",
    "local_rank": "who leads a host",
    "use_node_local_storage": "whether hosts share no file system",
}
FLAT = {
    "single_partition_of_fp32_groups": "fp32 weights of this rank, a flat tensor a group",
    "parallel_partitioned_bit16_groups": "the buffer in the model's precision, cut by ranks",
    "bit16_groups": "the model's tensors, which are views of that buffer",
    "real_dp_process_group": "the ranks of a group",
    "averaged_gradients": "gradients by group; dropped where a step was discarded",
}
WRAPPERS: Mapping[str, Mapping[str, str]] = {
    "stage 1": FLAT,
    "stage 1, fp16": FLAT,
    "stage 2": FLAT,
    "stage 1, bf16": {
        "fp32_groups_flat_partition": "fp32 weights of this rank, a flat tensor a group",
        "bf16_partitioned_groups": "the bf16 buffer, cut by ranks",
        "bf16_groups": "the model's tensors, which are views of that buffer",
        "real_dp_process_group": "the ranks of a group",
    },
    "stage 3": {
        "fp32_partitioned_groups_flat": "fp32 slices of this rank, a flat tensor a sub-group",
        "fp16_groups": "the model's tensors by sub-group",
    },
}
PARTITIONED = {
    "ds_shape": "the shape of the whole tensor",
    "ds_numel": "its elements",
    "ds_tensor": "this rank's slice",
    "ds_process_group": "the ranks that share it",
    "partition_numel": "the length of a slice, padding included",
}
SIGNATURES: Mapping[str, tuple[str, ...]] = {
    "initialize": ("model", "optimizer", "config"),
    "init_distributed": ("dist_backend", "verbose"),
    "zero.Init": ("config_dict_or_path",),
    "zero.GatheredParameters": ("params", "modifier_rank", "enabled"),
    "utils.safe_get_full_fp32_param": ("param",),
    "comm.all_reduce": (),
    "comm.barrier": (),
    "comm.get_rank": (),
    "comm.get_world_size": (),
    "DeepSpeedEngine.save_checkpoint": ("save_dir", "tag", "save_latest"),
    "DeepSpeedEngine.load_checkpoint": ("load_dir", "tag"),
}
FILES: Mapping[str, Sequence[str]] = {
    "stage 0": ["mp_rank_00_model_states.pt"],
    "stage 1": ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    "stage 1, bf16": [
        "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",
        "mp_rank_00_model_states.pt",
    ],
    "stage 1, fp16": ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    "stage 2": ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
    "stage 3": [
        "zero_pp_rank_0_mp_rank_00_model_states.pt",
        "zero_pp_rank_0_mp_rank_00_optim_states.pt",
    ],
}
SAVED: Mapping[str, str] = {
    "base_optimizer_state": "moments by number of the group",
    "single_partition_of_fp32_groups": "fp32 weights of the rank",
    "param_slice_mappings": "where each tensor lies in them, by name",
}
SAVED_BY_3: Mapping[str, str] = {
    "optimizer_state_dict": "moments by number of the sub-group",
    "fp32_flat_groups": "fp32 slices of the rank",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    """What one rank sees after a step of each kind."""
    root = tmp_path_factory.mktemp("adapter")
    spawn(_look, 1, root)
    looked: Mapping[str, Any] = torch.load(root / "found.pt")
    return looked


def _look(rank: int, root: Path) -> None:
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    from pipeline.optim.finite import guarding
    from pipeline.training import start

    CPU_Accelerator.is_fp16_supported = lambda self: True
    start.check_device = lambda run: None
    looked: dict[str, Any] = {}
    for kind, overrides in KINDS.items():
        engine: Any = start.build_engine(decode(root, overrides))
        engine.begin_phase(4)
        train_step(engine, 0)
        inner, wrapper = engine._engine, engine._engine.optimizer
        place = root / kind.replace(" ", "-")
        engine.save(place)
        files = sorted(path.name for path in (place / "state").iterdir())
        states = {}
        for name in files:
            if name.endswith("optim_states.pt"):
                states = torch.load(place / "state" / name, weights_only=False)
                states = states["optimizer_state_dict"]
        parameter = next(engine.task.parameters())
        looked[kind] = {
            "engine": [name for name in ENGINE if not hasattr(inner, name)],
            "wrapper": [name for name in WRAPPERS.get(kind, ()) if not hasattr(wrapper, name)],
            "ours": wrapper is engine.optimizer or wrapper.optimizer is engine.optimizer,
            "overflow": getattr(wrapper, "overflow", None),
            "guards": wrapper is engine.optimizer or guarding(wrapper) is wrapper,
            "norm": inner.get_global_grad_norm(),
            "applied": inner.was_step_applied(),
            "parameter": [name for name in PARTITIONED if not hasattr(parameter, name)],
            "files": files,
            "saved": sorted(states),
            "smallest_scale": (inner.dynamic_loss_scale_args() or {}).get("min_scale"),
            "scale": getattr(wrapper, "loss_scale", None),
            "raises": getattr(getattr(wrapper, "loss_scaler", None), "raise_error_at_min_scale", 0),
            "linear": torch.nn.functional.linear.__module__,
        }
    torch.save(looked, root / "found.pt")


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_take_what_they_are_given(name: str) -> None:
    import deepspeed

    member: Any = deepspeed
    for part in name.split("."):
        member = getattr(member, part, None)
        assert member is not None, f"deepspeed.{name} is gone; {name} is called by the engine"
    known = inspect.signature(member).parameters
    missing = [parameter for parameter in SIGNATURES[name] if parameter not in known]
    assert not missing, f"deepspeed.{name} takes no {', '.join(missing)} any more"


def test_an_operator_can_be_declared_incompatible() -> None:
    import deepspeed

    operators = deepspeed.ops.__compatible_ops__
    assert "deepspeed_shm_comm" in operators, (
        "the operator that leaks shared memory has another name: see where ranks on CPUs load it, "
        "and keep it from being compiled"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_has_what_ours_calls(found: Any, kind: str) -> None:
    missing = found[kind]["engine"]

    assert not missing, "; ".join(f"engine.{name} is gone: {ENGINE[name]}" for name in missing)
    assert found[kind]["ours"], "the wrapper calls another optimizer than ours"
    assert found[kind]["applied"], "engine.was_step_applied() denies a step that was applied"


@pytest.mark.parametrize("kind", WRAPPERS)
def test_a_wrapper_keeps_its_tensors_where_lamb_looks(found: Any, kind: str) -> None:
    missing = found[kind]["wrapper"]

    assert not missing, "; ".join(
        f"wrapper.{name} is gone: {WRAPPERS[kind][name]}" for name in missing
    )


def test_partitioned_tensors_say_what_they_are_parts_of(found: Any) -> None:
    missing = found["stage 3"]["parameter"]

    assert not missing, "; ".join(f"{name} is gone: {PARTITIONED[name]}" for name in missing)


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_look_for_gradients_that_are_not_finite(found: Any, kind: str) -> None:
    assert found[kind]["overflow"] is False, "wrapper.overflow told of a step that was discarded"
    assert found[kind]["norm"] > 0, "engine.get_global_grad_norm() is the norm before clipping"
    assert found[kind]["guards"], "wrapper.check_grad_overflow or .compute_grad_norm is off"


def test_fp16_tells_its_scale(found: Any) -> None:
    fp16 = found["stage 1, fp16"]

    assert fp16["scale"] == 2**16, "wrapper.loss_scale is what is logged"
    assert fp16["smallest_scale"] == 1, "dynamic_loss_scale_args()['min_scale'] tells its bound"
    assert fp16["raises"] is not None, "loss_scaler.raise_error_at_min_scale ended the process"


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_are_files_of_known_names(found: Any, kind: str) -> None:
    assert found[kind]["files"] == FILES[kind], "states are read by these names when they move"


@pytest.mark.parametrize("kind", ["stage 1", "stage 1, bf16", "stage 1, fp16", "stage 2"])
def test_states_are_saved_under_known_keys(found: Any, kind: str) -> None:
    missing = [key for key in SAVED if key not in found[kind]["saved"]]

    assert not missing, "; ".join(f"{key} is gone: {SAVED[key]}" for key in missing)


def test_states_of_stage_3_are_saved_under_known_keys(found: Any) -> None:
    missing = [key for key in SAVED_BY_3 if key not in found["stage 3"]["saved"]]

    assert not missing, "; ".join(f"{key} is gone: {SAVED_BY_3[key]}" for key in missing)


@pytest.mark.parametrize("kind", KINDS)
def test_only_stage_3_replaces_torchs_linear_function(found: Any, kind: str) -> None:
    """Comparisons to the bit rely on it: they run before any engine of stage 3."""
    ours = found[kind]["linear"].startswith("deepspeed")

    assert ours == (kind == "stage 3")


@pytest.mark.parametrize("version", ["0.19.7", "0.18.0", "0.20.0", "1.0", "unknown"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(ConfigError, match=r"DeepSpeed .* is installed.*pip install"):
        check_deepspeed_version(version)


@pytest.mark.parametrize("version", ["0.19.8", "0.19.8+cpu", "0.19.12"])
def test_supported_versions_pass(version: str) -> None:
    check_deepspeed_version(version)


def test_the_package_asks_for_the_supported_versions() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    oldest, beyond = SUPPORTED_DEEPSPEED

    assert re.search(r'"deepspeed([^"]*)"', text).group(1) == f">={oldest},<{beyond}"


def test_the_installed_version_is_supported() -> None:
    import deepspeed

    check_deepspeed_version(deepspeed.__version__)
