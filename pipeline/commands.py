"""What the commands do, once their arguments are read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from configs.schema import load
from pipeline.settings import Run, decode_run
from preprocessing.commands import run_preparation
from preprocessing.storage import InputError

Result = dict[str, Any]


def with_run(
    config: str,
    overrides: Sequence[str],
    action: Callable[[Run], Result],
    *,
    print_config: bool,
) -> Result:
    """Decode a recipe and act on it; with ``print_config`` show it, defaults spelled out."""
    run = decode_run(load(config, overrides))
    if print_config:
        print(yaml.safe_dump(run.plain(), sort_keys=False, allow_unicode=True), end="")
        return {"status": "printed"}
    return action(run)


def run_all(run: Run, train: Callable[[], None], *, overwrite: bool) -> Result:
    """The whole road: stages, training (by ``train``), evaluation, export, report."""
    for outcome in run_preparation(run.preparation, overwrite=overwrite):
        totals = outcome.manifest.totals()
        told = ", ".join(f"{count:,} {what}" for what, count in totals.items() if count)
        _say(f"{outcome.stage}: {outcome.status}: {outcome.directory} ({told})")
    if trained := finished_training(run):
        _say(f"train: up to date: {trained}")
    else:
        train()
    results = {
        "evaluation": evaluate_run(run, None, only_if_stale=True)["sets"],
        "export": export_run(run, None),
        "report": report_run(run)["path"],
    }
    _say(f"done: {results['report']}")
    return results


def finished_training(run: Run) -> Path | None:
    """The last checkpoint of this very configuration, if it stands after the last step."""
    from pipeline.training.checkpoints.checkpoint import CHECKPOINTS, Checkpoints, read_state

    newest = Checkpoints(run.output.directory / CHECKPOINTS).latest()
    if newest is None:
        return None
    state = read_state(newest)
    leaves = run.resume_leaves()
    same = all(
        state.leaves.get(key, value) == value  # what is younger than a checkpoint it cannot hold
        for key, (value, resume) in leaves.items()
        if resume != "free"
    )
    return newest if same and state.step >= run.total_steps else None


def evaluate_run(run: Run, checkpoint: Path | None, *, only_if_stale: bool = False) -> Result:
    """Score a checkpoint on every validation set, beside its baselines."""
    from pipeline.evaluation.checkpoints import newest
    from pipeline.evaluation.language_modeling import evaluate, read_evaluation
    from pipeline.training.checkpoints.checkpoint import read_origin

    standing = read_evaluation(run.output.directory) if only_if_stale else None
    if (
        standing is not None
        and standing.weights == read_origin(newest(run)).weights
        and standing.max_rows == run.evaluation.max_rows
    ):
        _say("evaluate: up to date")
        results = list(standing.sets)
    else:
        results = evaluate(run, checkpoint)
    for result in results:
        _say(str(result))
    return {"sets": {result.name: result.plain() for result in results}}


def export_run(run: Run, checkpoint: Path | None) -> Result:
    """Write the Hugging Face form of a checkpoint, and prove it.

    Raises:
        InputError: there is no checkpoint, or something else stands at the place.
    """
    from pipeline.evaluation.checkpoints import load_model, newest
    from pipeline.huggingface.card import model_card
    from pipeline.huggingface.export import export_model
    from pipeline.training.checkpoints.checkpoint import TOKENIZER

    checkpoint = checkpoint or newest(run)
    model = load_model(run, checkpoint).model
    target = run.export.directory or run.output.directory / "export"
    card = model_card(run, checkpoint)
    try:
        report = export_model(model, run.model, checkpoint / TOKENIZER, target, card)
    except ValueError as error:
        raise InputError(str(error)) from None
    _say(
        f"export: {report.directory} loads as {report.architecture} "
        f"({report.num_parameters:,} parameters, logits differ by {report.max_difference:.1e})"
    )
    return {
        "directory": str(report.directory),
        "architecture": report.architecture,
        "num_parameters": report.num_parameters,
        "max_difference": report.max_difference,
    }


def report_run(run: Run) -> Result:
    """Write ``report.html``."""
    from pipeline.report import write_report

    return {"path": str(write_report(run))}


def import_folder(folder: Path, output: Path) -> Result:
    """A Hugging Face folder as weights, configuration and tokenizer of ours.

    Raises:
        InputError: the output exists, or the folder cannot be used.
    """
    import torch
    from safetensors import SafetensorError

    from configs.schema import to_plain
    from pipeline.huggingface.importing import import_model
    from pipeline.models import build_model
    from pipeline.training.checkpoints.checkpoint import CONFIG_FILE, TOKENIZER, WEIGHTS_FILE
    from pipeline.weights import save_weights
    from preprocessing.storage import rename

    if output.exists():
        raise InputError(f"{output}: stands already; name a new folder")
    try:
        model, weights = import_model(folder)
    except (ValueError, SafetensorError) as error:
        raise InputError(f"{folder}: {error}") from None
    writing = output.with_name(f".{output.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    (writing / TOKENIZER).mkdir(parents=True)
    with torch.device("meta"):
        names = [name for name, _ in build_model(model).named_parameters()]  # tied ones once
    save_weights(writing / WEIGHTS_FILE, {name: weights[name] for name in names})
    text = yaml.safe_dump({"model": to_plain(model)}, sort_keys=False)
    (writing / CONFIG_FILE).write_text(text, encoding="utf-8")
    # An export of ours holds a sentencepiece model and what it became: the model decides.
    has_model = (folder / "tokenizer.model").exists()
    for name in ("tokenizer.model",) if has_model else ("tokenizer.json", "vocab.txt"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, writing / TOKENIZER / name)
    rename(writing, output)
    num_parameters = sum(weights[name].numel() for name in names)
    _say(f"import: {output} holds a {model.family} of {num_parameters:,} values")
    return {"directory": str(output), "family": model.family}


def convert_run(run: Run, checkpoint: Path | None, output: Path | None) -> Result:
    """Write the portable form of a checkpoint's training state.

    Raises:
        InputError: there is no checkpoint, it is damaged, or something stands at the place.
    """
    from pipeline.evaluation.checkpoints import newest
    from pipeline.training.checkpoints.convert import convert

    checkpoint = checkpoint or newest(run)
    target = convert(checkpoint, output or run.output.directory / "portable" / checkpoint.name)
    _say(
        f"convert: {target} goes on with any engine, stage and number of ranks: "
        f"train.init_from={{checkpoint: {target}, what: everything}}"
    )
    return {"directory": str(target), "checkpoint": str(checkpoint)}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
