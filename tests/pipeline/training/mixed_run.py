"""The small run's recipe on a corpus of several sources, with mixtures and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from small_run import write_corpus

from configs.schema import load
from pipeline.data import Deal
from pipeline.data import load as load_batches
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run, decode_run
from preprocessing.commands import run_preparation

RECIPE = """
seed: 3
corpus:
  directory: {root}/data
  sources:
{sources}
  validation: {{heldout: {{share: 0.1}}}}
  shard_bytes: 20000
tokenizer: {{kind: wordpiece, vocab_size: 300, sources: [first]}}
examples:
{examples}
model: {{family: bert, vocab_size: 320, hidden_size: 32, num_layers: 2, num_heads: 2,
         intermediate_size: 64, max_positions: 48}}
objectives: [{{kind: masked_lm}}, {{kind: next_sentence}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant, warmup_steps: 2}}
phases:
{phases}
train: {{micro_batch_rows: 8, log_every: 1, evaluate_every: 50, save_every: 2, loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 16, micro_batch_rows: 8}}
output: {{directory: {root}/run}}
"""
PAIRS = "length: 32, layout: {kind: pairs}, corruption: {kind: masked}"
SHORT = PAIRS.replace("kind: pairs", "kind: pairs, short_probability: 1.0")
EXAMPLES = {
    "first": f"{SHORT}, sources: [first]",
    "second": f"{PAIRS}, sources: [second], pack: true, copies: 2",
    "third": f"{PAIRS}, sources: [third]",
    "blocks": "length: 48, layout: {kind: blocks}, corruption: {kind: masked}, sources: [second]",
}


def write_recipe(root: Path, name: str, sources: Sequence[str], phases: Sequence[str]) -> Path:
    """A recipe over some sources of the corpus; the examples sets are those they suffice for."""
    for number, source in enumerate(("first", "second", "third")):
        if not (root / f"{source}.txt").exists():
            write_corpus(root / f"{source}.txt", documents=50 + 20 * number, seed=number)
    recipe = root / name
    recipe.write_text(
        RECIPE.format(
            root=root,
            sources="\n".join(f"    {one}: {{inputs: [{root}/{one}.txt]}}" for one in sources),
            examples="\n".join(
                f"  {name}: {{{settings}}}"
                for name, settings in EXAMPLES.items()
                if any(f"[{source}]" in settings for source in sources)
            ),
            phases="\n".join(f"  - {{{phase}}}" for phase in phases),
        )
    )
    return recipe


def prepared(recipe: Path) -> Run:
    """The run of a recipe, its stages brought up to date."""
    run = decode_run(load(recipe))
    for _ in run_preparation(run.preparation, overwrite=True):
        pass
    return run


def expected_fingerprints(run: Run) -> list[int]:
    """Of every step, as one process finds them that reads nothing else."""
    timeline, data = Timeline(run.phases, run.schedule), open_data(run)
    prints = []
    for step in range(run.total_steps):
        source = data.phases[timeline.place(step).phase]
        rows = timeline.stretch(step).batch_rows
        deal = Deal(timeline.position(step), 1, rows, run.train.micro_batch_rows, 0, 1)
        ((*batches,),) = load_batches(source, deal, workers=0, pin=False)
        prints.append(sum(batch.fingerprint for batch in batches))
    return prints
