"""The model card of an export: what it is, how it was made, what was measured, and what was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from pipeline.settings import Run
from pipeline.training.checkpoints.checkpoint import Origin, read_origin
from preprocessing.storage import MANIFEST, InputError, Manifest

EVALUATION_FILE = "evaluation.json"


def model_card(run: Run, checkpoint: Path) -> str:
    """The text of ``README.md`` for the export of a checkpoint."""
    header = yaml.safe_dump(
        {"library_name": "transformers", "tags": [run.model.family, "lexmill"]}, sort_keys=False
    )
    shape = yaml.safe_dump(run.plain()["model"], sort_keys=False).strip()
    phases = "\n".join(
        f"| {index} | {', '.join(phase.sets)} | {phase.steps} | {phase.batch_rows} "
        f"| {phase.peak_rate:g} |"
        for index, phase in enumerate(run.phases)
    )
    return f"""---
{header}---

# {run.model.family.upper()} pretrained with lexmill

{_origin(run, read_origin(checkpoint))}

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

Optimizer: `{run.optimizer.kind}`; precision: {run.train.precision}.

## Figures

{_figures(run)}
"""


def _origin(run: Run, origin: Origin) -> str:
    if origin.seed is None:
        return "Imported weights."
    return f"Weights after step {origin.step} of {run.total_steps}, seed {origin.seed}."


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


def _figures(run: Run) -> str:
    path = run.output.directory / EVALUATION_FILE
    if not path.exists():
        return "Not yet measured."
    measured: Any = json.loads(path.read_text(encoding="utf-8"))
    return f"```json\n{json.dumps(measured['sets'], indent=1, ensure_ascii=False)}\n```"
