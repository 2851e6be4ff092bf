"""DeepSpeed's configuration, as it follows from a recipe. DeepSpeed itself is not imported.

What was found by experiment with DeepSpeed 0.19.8, and decides what stands here:

- ``zero_allow_untested_optimizer`` is needed: acceptance is by exact type, and ours are ours.
  ``zero_force_ds_cpu_optimizer`` would refuse them where their states are offloaded.
- Gradients of a model in bf16 or fp16 are added up and sent in that precision unless
  ``data_types.grad_accum_dtype`` and ``communication_data_type`` say fp32.
- Stage 0 refuses fp32 sums for such a model. There bf16 is autocast around fp32 weights, as the
  local engine has it; for fp16, whose loss scale that form does not let be set, stage 1 costs
  nothing more.
- Page-locked memory for what is offloaded is of use beside a GPU only.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from configs.schema import ConfigError, to_plain
from pipeline.sections import DeepSpeedConfig

SUPPORTED_DEEPSPEED = ("0.19.8", "0.20")
"""The oldest version that this code was tested with, and the first that it was not."""


def check_deepspeed_version(version: str) -> None:
    """Refuse a DeepSpeed whose inner parts may lie elsewhere.

    Raises:
        ConfigError: the version is outside of the supported range.
    """
    oldest, beyond = SUPPORTED_DEEPSPEED
    if not _release(oldest) <= _release(version) < _release(beyond):
        raise ConfigError(
            [
                f"DeepSpeed {version} is installed, and LAMB's view of its memory was verified "
                f"with {oldest} up to {beyond} (exclusive) only; "
                f"pip install 'deepspeed>={oldest},<{beyond}'"
            ]
        )


def deepspeed_options(
    settings: DeepSpeedConfig,
    *,
    precision: str,
    gradient_clipping: float,
    micro_batch_rows: int,
) -> dict[str, Any]:
    """What ``deepspeed.initialize`` is given as ``config``.

    Args:
        settings: the recipe's section; its ``options`` are merged in last, section by section.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        gradient_clipping: bound of the gradient's global norm; 0 is none.
        micro_batch_rows: rows a rank works on at once.
    """
    options = {
        "train_micro_batch_size_per_gpu": micro_batch_rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": gradient_clipping,
        "zero_optimization": {"stage": settings.zero_stage, **_offload(settings)},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
        **_precision(settings, precision),
    }
    return _merge(options, to_plain(settings.options))


def _precision(settings: DeepSpeedConfig, precision: str) -> dict[str, Any]:
    fp32_sums = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    if precision == "bf16" and settings.zero_stage == 0:
        return {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
    if precision == "bf16":
        return {"bf16": {"enabled": True}, **fp32_sums}
    if precision == "fp16":
        scale = settings.fp16
        section = {
            "enabled": True,
            "loss_scale": 0,  # dynamic
            "initial_scale_power": scale.initial_scale_power,
            "loss_scale_window": scale.scale_window,
            "hysteresis": scale.hysteresis,
            "min_loss_scale": scale.minimum_scale,
        }
        return {"fp16": section, **fp32_sums}
    return {}


def _offload(settings: DeepSpeedConfig) -> dict[str, Any]:
    devices = {
        "offload_optimizer": settings.offload_optimizer,
        "offload_param": settings.offload_parameters,
    }
    return {
        name: {"device": device, "pin_memory": torch.cuda.is_available()}
        for name, device in devices.items()
        if device != "none"
    }


def _merge(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Options of the user into ours, section by section."""
    merged = dict(ours)
    for key, value in theirs.items():
        own = merged.get(key)
        merged[key] = (
            _merge(own, value) if isinstance(own, dict) and isinstance(value, dict) else value
        )
    return merged


def _release(version: str) -> tuple[int, ...]:
    """``0.19.8+cpu`` as (0, 19, 8)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()
