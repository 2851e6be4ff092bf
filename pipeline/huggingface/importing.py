"""Read a Hugging Face folder: its configuration and its weights, or a sentence for each fault."""

from __future__ import annotations

import json
from pathlib import Path

import pydantic
import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.huggingface import config_from_huggingface, form_of
from pipeline.huggingface.form import FAMILY
from pipeline.huggingface.names import OUR_FILE
from pipeline.models import ModelConfig, build_model

GAMMA_AND_BETA = {".LayerNorm.gamma": ".LayerNorm.weight", ".LayerNorm.beta": ".LayerNorm.bias"}
"""What checkpoints converted from TensorFlow call the parameters of a norm."""

BUFFER = ".embeddings.position_ids"
"""What ends the name of a constant that older versions of transformers stored as a weight."""


def import_model(directory: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration and the ``state_dict`` (fp32) of an exported or published folder.

    Reads ``config.json`` and ``model.safetensors``, and ``lexmill.safetensors`` where an export of
    ours has one; pickled weights are never opened.

    Raises:
        ValueError: a file is missing, or the architecture or a setting is not supported.
        TensorError: tensors are missing, unknown or of another shape; each is named.
    """
    for name in ("config.json", "model.safetensors"):
        if not (directory / name).is_file():
            raise ValueError(
                f"there is no {name} here; save the model with transformers' save_pretrained, "
                "in one shard"
            )
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise ValueError("config.json: not the configuration of a model")
    tensors = {
        _modern(name): tensor
        for name, tensor in load_file(directory / "model.safetensors").items()
        if not name.endswith(BUFFER)
    }
    own = load_file(directory / OUR_FILE) if (directory / OUR_FILE).is_file() else {}
    try:
        config = config_from_huggingface(fields, {**tensors, **own})
    except pydantic.ValidationError as error:
        told = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"config.json: {'; '.join(told)}") from None
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_model(config).state_dict().items()}
    table = form_of(config).name_table(config)
    if table.ours_alone and not own:
        raise ValueError(
            f"there is no {OUR_FILE} here, with the heads of a {config.family} that transformers "
            f"does not know; put it there, or take {FAMILY} out of config.json and read what "
            "there is"
        )
    state = table.from_huggingface(tensors, shapes)
    return config, state | table.beside.from_huggingface(own, shapes)


def _modern(name: str) -> str:
    for old, new in GAMMA_AND_BETA.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
