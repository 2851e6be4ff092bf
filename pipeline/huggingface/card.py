"""The model card of an export: what it is, how it was made, what was measured, and what was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pipeline.evaluation.language_modeling import ObjectiveResult, read_evaluation
from pipeline.huggingface import form_of
from pipeline.huggingface.names import OUR_FILE
from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import Origin, read_origin
from preprocessing.storage import MANIFEST, InputError, Manifest

RECIPE = ("tokenizer", "examples", "objectives", "optimizer", "schedule")
"""Sections of the configuration that the card repeats, defaults spelled out."""


def model_card(run: Run, checkpoint: Path) -> str:
    """The text of ``README.md`` for the export of a checkpoint."""
    header = yaml.safe_dump(
        {"library_name": "transformers", "tags": [run.model.family, "lexmill"]}, sort_keys=False
    )
    plain = run.plain()
    origin = read_origin(checkpoint)
    shape = _yaml(plain["model"])
    recipe = _yaml({name: plain[name] for name in RECIPE})
    phases = "\n".join(
        f"| {index} | {', '.join(phase.sets)} | {phase.steps} | {phase.batch_rows} "
        f"| {phase.peak_rate:g} |"
        for index, phase in enumerate(run.phases)
    )
    return f"""---
{header}---

# {run.model.family.upper()} pretrained with lexmill

{_origin(run, origin)}
{_beside(run)}
## Model

```yaml
{shape}
```

## Data

{_data(run)}

## Training

| phase | examples | steps | rows a step | peak learning rate |
|---|---|---|---|---|
{phases}

Precision: {run.train.precision}. What the examples are, what is learned from them, and how:

```yaml
{recipe}
```

## Figures

{_figures(run, origin)}
"""


def _origin(run: Run, origin: Origin) -> str:
    if origin.seed is None:
        return "Imported weights."
    begun = run.train.init_from
    first = "drawn anew" if begun is None else f"those of `{begun.checkpoint.name}`"
    return (
        f"Weights after step {origin.step} of {run.total_steps}, seed {origin.seed}; the first "
        f"ones were {first}."
    )


def _beside(run: Run) -> str:
    alone = sorted(form_of(run.model).name_table(run.model).ours_alone)
    if not alone:
        return ""
    heads = ", ".join(dict.fromkeys(name.split(".")[1] for name in alone))
    return (
        f"\n`{OUR_FILE}` holds what `model.safetensors` and transformers have no place for: "
        f"{heads}. `lexmill import` reads it.\n"
    )


def _data(run: Run) -> str:
    try:
        manifest = Manifest.read(run.preparation.tokens_directory)
    except InputError:
        return "The prepared data was not at hand when this card was written."
    lines = []
    for split in manifest.splits:
        totals = manifest.totals(split)
        tokens = totals.get("tokens", 0)
        lines.append(f"- `{split}`: {totals['rows']:,} documents, {tokens:,} tokens")
    lines.append(f"- tokenizer: {run.preparation.tokenizer.directory_name}")
    lines.append(f"- manifest of the tokens: `{MANIFEST}`, tokenizer {manifest.facts['tokenizer']}")
    return "\n".join(lines)


def _figures(run: Run, origin: Origin) -> str:
    """Every objective on every held-out set, and for masked tokens what the loss compares with."""
    evaluation = read_evaluation(run.output.directory)
    if evaluation is None or evaluation.weights != origin.weights:
        return "Not yet measured."
    lines = [
        "On held-out text, in nats per target.",
        "",
        "| set | objective | targets | loss | right |",
        "|---|---|---|---|---|",
    ]
    for own in evaluation.sets:
        masked = ObjectiveResult(own.targets, own.loss, own.accuracy)
        lines += [
            f"| {own.name} | {name} | {result.targets:,} | {result.loss:.4f} "
            f"| {result.accuracy:.2%} |"
            for name, result in {"masked_lm": masked, **own.others}.items()
        ]
    lines += [
        "",
        "What the loss on masked tokens compares with: guesses by frequency alone, and the model "
        "with its context shuffled.",
        "",
        "| set | perplexity | unigram | shuffled context |",
        "|---|---|---|---|",
        *(
            f"| {own.name} | {own.perplexity:.2f} | {own.unigram:.4f} | {own.shuffled:.4f} |"
            for own in evaluation.sets
        ),
    ]
    return "\n".join(lines)


def _yaml(plain: Any) -> str:
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).strip()
