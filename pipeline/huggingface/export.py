"""Write a model in the Hugging Face form, and prove it before anybody sees it.

The folder is built beside its place, loaded with transformers, and compared: no tensor missing,
unexpected or mismatched; the tokenizer's ids equal; the logits equal. Only then it is renamed, so
what stands at the target has always passed. What the class of transformers has no place for goes
into ``lexmill.safetensors``, which our import reads and transformers does not.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pipeline.huggingface import form_of
from pipeline.huggingface.names import OUR_FILE
from pipeline.huggingface.proof import ExportError, compare_logits, compare_tokenizers, quiet
from pipeline.huggingface.tokenizer import read_tokenizer, write_tokenizer
from pipeline.models import ModelConfig
from pipeline.weights import save_weights

__all__ = ["ExportError", "ExportReport", "export_model"]


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        directory: the folder.
        architecture: the class of transformers that it loads as.
        num_parameters: distinct parameters.
        max_difference: the largest difference of a logit on the probe.
    """

    directory: Path
    architecture: str
    num_parameters: int
    max_difference: float


def export_model(
    model: nn.Module, config: ModelConfig, tokenizer_directory: Path, directory: Path, card: str
) -> ExportReport:
    """Export a whole (unpartitioned) model of ``config`` to ``directory``.

    An earlier export at that place is replaced.

    Args:
        tokenizer_directory: holds ``tokenizer.json`` or ``tokenizer.model``, and perhaps
            ``vocab.txt``.
        card: the text of ``README.md``.

    Raises:
        ValueError: the tokenizer does not fit, or ``directory`` holds something else.
        TensorError: the model is not one of ``config``.
        ExportError: what was written does not compute the same in transformers.
    """
    if directory.exists() and not _replaceable(directory):
        raise ValueError(f"{directory}: holds something else than an export; name a new folder")
    info = read_tokenizer(tokenizer_directory)
    segments = config.num_segments > 1
    form = form_of(config)
    fields = form.config_to_huggingface(config, info)
    table, state = form.name_table(config), model.state_dict()
    tensors = table.to_huggingface(state)
    own = table.beside.to_huggingface({name: state[name] for name in table.ours_alone})

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as beside:
        made = Path(beside, "made")
        made.mkdir()
        save_weights(made / "model.safetensors", tensors)
        if own:
            save_weights(made / OUR_FILE, own)
        _write_json(made / "config.json", fields)
        write_tokenizer(tokenizer_directory, made, info, config.max_positions, segments=segments)
        (made / "README.md").write_text(card, encoding="utf-8")
        with quiet():
            compare_tokenizers(tokenizer_directory, made, segments=segments)
            difference = compare_logits(config, state, made, form.answers(config))
        if directory.exists():
            directory.rename(Path(beside, "replaced"))
        made.rename(directory)
    return ExportReport(
        directory=directory,
        architecture=fields["architectures"][0],
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        max_difference=difference,
    )


def _replaceable(directory: Path) -> bool:
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir()}
    return not names or {"config.json", "model.safetensors"} <= names


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")
