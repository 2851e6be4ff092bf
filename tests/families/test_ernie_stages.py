"""Characters, phrases, entities: one run whose masks grow from phase to phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_run import Job, records, run_job

from configs.schema import load
from pipeline.data import Deal
from pipeline.data import load as load_batches
from pipeline.opening import open_data
from pipeline.phases import Timeline
from pipeline.settings import Run, decode_run
from preprocessing.commands import run_preparation
from preprocessing.vocabulary import Vocabulary

PHRASES = ("千山万水", "五光十色", "一心一意", "三言两语")
ENTITIES = ("东海龙宫", "西岳华山", "南天门外", "北冥大鱼")
FILLING = "人来客往看书写字吃茶饮酒早晚出入城里城外说话听雨"
STAGES = ("tokens", "phrases", "entities")
STEPS = 6

RECIPE = """
seed: 5
corpus:
  directory: {root}/data
  inputs: [{root}/corpus.txt]
  annotations:
    phrases: [{{path: {root}/phrases.txt}}]
    entities: [{{path: {root}/entities.txt}}]
  validation: {{heldout: {{share: 0.1}}}}
  shard_bytes: 20000
tokenizer:
  kind: characters
  vocab_size: 100
  special_tokens: ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
examples:
  tokens: {{length: 64, layout: {{kind: pairs}}, corruption: {{kind: units, level: tokens}}}}
  phrases: {{length: 64, layout: {{kind: pairs}}, corruption: {{kind: units, level: phrases}}}}
  entities: {{length: 64, layout: {{kind: pairs}}, corruption: {{kind: units, level: entities}}}}
model: {{family: ernie, vocab_size: 100, hidden_size: 32, num_layers: 2, num_heads: 2,
         intermediate_size: 64, max_positions: 65}}
objectives: [{{kind: masked_lm}}, {{kind: next_sentence}}]
optimizer: {{kind: lamb}}
schedule: {{kind: constant}}
phases:
  - {{examples: tokens, steps: 6, batch_rows: 16, learning_rate: 6e-3}}
  - {{examples: phrases, steps: 6, batch_rows: 16, learning_rate: 6e-3}}
  - {{examples: entities, steps: 6, batch_rows: 16, learning_rate: 6e-3}}
train: {{engine: local, micro_batch_rows: 8, log_every: 1, evaluate_every: 9, save_every: 9,
         loader_workers: 0}}
tracking: {{mode: disabled}}
evaluation: {{max_rows: 16, micro_batch_rows: 8}}
output: {{directory: {root}/run}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stages")
    rng = np.random.default_rng(0)

    def sentence() -> str:
        words = [
            *rng.choice(PHRASES, 2),
            *rng.choice(ENTITIES, 2),
            *rng.choice(list(FILLING), rng.integers(3, 9)),
        ]
        return "".join(rng.permutation(words)) + "。"

    documents = ["".join(sentence() for _ in range(rng.integers(3, 9))) for _ in range(80)]
    (root / "corpus.txt").write_text("\n\n".join(documents), encoding="utf-8")
    (root / "phrases.txt").write_text("\n".join(PHRASES), encoding="utf-8")
    (root / "entities.txt").write_text("\n".join(ENTITIES), encoding="utf-8")
    path = root / "recipe.yaml"
    path.write_text(RECIPE.format(root=root), encoding="utf-8")
    for _ in run_preparation(decode_run(load(path)).preparation):
        pass
    return path


def hidden_of(run: Run, step: int) -> list[tuple[str, list[bool]]]:
    """The text of each row as it was before the corruption, and which characters are targets."""
    timeline = Timeline(run.phases, run.schedule)
    source = open_data(run).phases[timeline.place(step).phase]
    vocabulary = Vocabulary.load(run.preparation.tokenizer_directory)
    deal = Deal(timeline.position(step), 1, 16, 8, rank=0, world_size=1)
    found = []
    for micro_batch in next(iter(load_batches(source, deal, workers=0, pin=False))):
        ids = micro_batch.batch.ids.clone()
        targets = micro_batch.batch.targets["masked_lm"]
        real = targets.labels >= 0
        ids.view(-1)[targets.indices[real]] = targets.labels[real].to(ids.dtype)
        chosen = np.zeros(ids.numel(), dtype=bool)
        chosen[targets.indices[real].numpy()] = True
        for row, own in zip(ids, chosen.reshape(ids.shape), strict=True):
            pieces = [token if len(token) == 1 else "|" for token in vocabulary.tokens(row.numpy())]
            found.append(("".join(pieces), own.tolist()))
    return found


def share_of_whole(rows: list[tuple[str, list[bool]]], units: tuple[str, ...]) -> float:
    """Of the units of which a character is to be predicted, the share of those that are whole."""
    touched = whole = 0
    for text, chosen in rows:
        for unit in units:
            start = text.find(unit)
            while start >= 0:
                own = chosen[start : start + len(unit)]
                touched += any(own)
                whole += all(own)
                start = text.find(unit, start + 1)
    assert touched > 20
    return whole / touched


def test_masks_grow_at_the_boundaries_of_phases(recipe: Path) -> None:
    run = decode_run(load(recipe))
    whole = {}
    for phase, stage in enumerate(STAGES):
        for half, steps in enumerate((range(STEPS // 2), range(STEPS // 2, STEPS))):
            rows = [row for step in steps for row in hidden_of(run, phase * STEPS + step)]
            whole[stage, half] = [share_of_whole(rows, one) for one in (PHRASES, ENTITIES)]
    for half in range(2):
        # Of units of four with any character chosen, 0.15**4 / (1 - 0.85**4) = 0.1 % have all.
        assert max(whole["tokens", half]) < 0.1
        assert whole["phrases", half][0] == 1.0
        assert whole["phrases", half][1] < 0.1
        assert whole["entities", half][0] < 0.1
        assert whole["entities", half][1] == 1.0


def test_one_run_goes_through_the_three_stages(recipe: Path, tmp_path: Path) -> None:
    run_job(recipe, Job(tmp_path / "whole"))
    logged = records(tmp_path / "whole", "train")
    assert [record["step"] for record in logged] == list(range(1, 3 * STEPS + 1))
    run_job(recipe, Job(tmp_path / "killed", stop_at=STEPS + 2))
    run_job(recipe, Job(tmp_path / "killed"))
    again = records(tmp_path / "killed", "train")
    by_step = {record["step"]: record for record in again}
    assert [by_step[record["step"]] for record in logged] == logged
