from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest

from pipeline.evaluation.language_modeling import Evaluation, SetResult, evaluate
from pipeline.report import command_line, data_lines, history, verdict, write_report
from preprocessing.charts import number
from preprocessing.storage import InputError


def result(name="heldout", unigram=0.7, shuffled=0.5):
    return SetResult(
        name=name,
        rows=10,
        targets=50,
        loss=5.0,
        perplexity=148.4,
        accuracy=0.3,
        uniform=9.0,
        unigram=5.0 + unigram,
        shuffled=5.0 + shuffled,
        below_unigram=unigram,
        below_shuffled=shuffled,
    )


def evaluation(*sets):
    return Evaluation("step-00001200", 1200, "0" * 32, None, sets, ())


@pytest.fixture
def copied(trained, tmp_path):
    directory = shutil.copytree(
        trained.output.directory,
        tmp_path / "run",
        ignore=shutil.ignore_patterns("evaluation.json", "export", "report.html"),
    )
    return dataclasses.replace(
        trained, output=dataclasses.replace(trained.output, directory=directory)
    )


def page_of(run):
    return write_report(run).read_text(encoding="utf-8")


def test_the_verdict_weighs_both_margins():
    passed = verdict(evaluation(result()))
    assert passed.passed is True
    assert passed.text == (
        "Passes: after 1,200 steps the held-out loss on “heldout” is 5.00 nats, 0.70 below the "
        "unigram baseline (asked for: 0.6 below) and 0.50 below its own loss with shuffled "
        "context (asked for: 0.4 below)."
    )
    assert verdict(evaluation(result(unigram=0.59))).passed is False
    assert verdict(evaluation(result(shuffled=0.39))).passed is False
    above = verdict(evaluation(result(unigram=-1.1)))
    assert above.text.startswith("Fails:")
    assert "1.10 above the unigram baseline" in above.text


def test_the_weakest_set_speaks_for_the_run():
    weak = verdict(evaluation(result("good"), result("poor", shuffled=0.1)))
    assert weak.passed is False
    assert "“poor”" in weak.text


def test_the_page_of_an_evaluated_run_holds_everything(copied):
    (heldout,) = evaluate(copied)
    page = page_of(copied)
    assert verdict(evaluation(heldout)).text.split(":")[0] in page
    assert f"{heldout.loss:.3f}" in page
    assert f"{heldout.unigram:.3f}" in page
    assert f"{heldout.shuffled:.3f}" in page
    assert f"{heldout.targets:,} masked tokens in 50 rows" in page
    assert page.count('class="sample"') == 8
    assert f"unigram {number(heldout.unigram)}</span>" in page  # a level of the loss curves
    for heading in ("Held-out loss", "Training", "Samples", "Data", "Events", "How to reproduce"):
        assert f"<h2>{heading}" in page
    state = json.loads(
        (copied.output.directory / "checkpoints/step-00000008/state.json").read_text()
    )
    assert state["weights"] in page
    assert state["tokenizer"] in page
    assert "kind: lamb" in page  # the configuration
    assert "has not been evaluated" not in page


def test_a_right_guess_is_marked(copied):
    evaluate(copied)
    path = copied.output.directory / "evaluation.json"
    plain = json.loads(path.read_text())
    plain["samples"] = [
        {
            "text": "a [MASK] b",
            "truth": "cat",
            "predictions": [{"piece": "cat", "probability": 0.5}],
        },
        {
            "text": "c [MASK] d",
            "truth": "cat",
            "predictions": [{"piece": "dog", "probability": 0.5}],
        },
    ]
    path.write_text(json.dumps(plain))
    page = page_of(copied)
    assert '<li class="right">cat <small>50.0%</small>' in page
    assert "<li>dog <small>50.0%</small>" in page
    assert page.count("there stood: <b>cat</b>") == 1


def test_nothing_is_loaded_from_elsewhere(copied):
    evaluate(copied)
    page = page_of(copied)
    assert not re.findall(
        r"""(?:src|href|srcset)\s*=|@import|url\(|<script|<link|https?://""", page
    )


def test_text_is_escaped(copied):
    evaluate(copied)
    path = copied.output.directory / "evaluation.json"
    plain = json.loads(path.read_text())
    plain["samples"][0]["text"] = "<script>alert(1)</script> [MASK] & more"
    plain["sets"][0]["name"] = "<b>set</b>"
    path.write_text(json.dumps(plain))
    with open(copied.output.directory / "metrics.jsonl", "a") as file:
        change = {"kind": "event", "step": 8, "event": "change", "what": "<img src=x>"}
        file.write(json.dumps(change) + "\n")
    page = page_of(copied)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>set</b>" not in page
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page


def test_what_is_missing_is_said_to_be(copied):
    page = page_of(copied)
    assert "Held-out loss: not measured yet" in page
    assert "the run has not been evaluated" in page
    assert "not exported yet" in page
    assert 'class="sample"' not in page
    (copied.output.directory / "metrics.jsonl").unlink()
    bare = page_of(copied)
    assert bare.count('<p class="absent">not measured</p>') >= 3  # curves
    assert "none recorded" in bare


def test_an_outdated_evaluation_is_said_to_be(copied):
    older = copied.output.directory / "checkpoints" / "step-00000004"
    evaluate(copied, older)
    page = page_of(copied)
    assert "The newest checkpoint (step 8) has not been evaluated" in page
    assert "those of step-00000004" in page


def test_an_export_is_named(copied):
    directory = copied.output.directory / "export"
    directory.mkdir()
    (directory / "config.json").write_text('{"architectures": ["BertForPreTraining"]}')
    assert "loads as BertForPreTraining" in page_of(copied)


def test_a_missing_run_is_refused(recipe, tmp_path):
    with pytest.raises(InputError, match="there is no run here to report on; train first"):
        write_report(recipe([f"output.directory={tmp_path / 'none'}"]))
    assert not (tmp_path / "none").exists()


def test_the_data_is_told_stage_by_stage(recipe):
    run = recipe()
    lines = {(line.stage, line.split): line for line in data_lines(run)}
    assert lines["ingest", "train"].documents == "150"
    held_out = int(lines["deduplicate", "heldout"].documents)
    assert int(lines["deduplicate", "train"].documents) + held_out == 150
    assert lines["deduplicate", "train"].left_out == ""
    rows = lines["examples pairs", "train, copy 000"]
    assert rows.rows == rows.sequences
    assert 0 < float(rows.fill.rstrip("%")) <= 100
    assert lines["tokenize", "train"].tokens


def test_data_that_is_gone_is_said_to_be(recipe, tmp_path):
    run = recipe([f"corpus.directory={tmp_path}"])
    assert {line.split for line in data_lines(run)} == {"not measured"}


def test_history_folds_checkpoints_and_tells_changes():
    start = {"engine": "deepspeed", "ranks": 2, "device": "cpu", "revision": "abc"}
    lines = history(
        [
            {"kind": "event", "step": 0, "event": "start", **start},
            {"kind": "event", "step": 300, "event": "checkpoint", "path": "step-00000300"},
            {"kind": "event", "step": 600, "event": "checkpoint", "path": "step-00000600"},
            {"kind": "event", "step": 600, "event": "change", "what": "rate: 1 then, 2 now"},
            {"kind": "event", "step": 600, "event": "phase", "phase": 1},
            {"kind": "event", "step": 900, "event": "checkpoint", "path": "step-00000900"},
        ]
    )
    assert [(line.steps, line.what, line.details) for line in lines] == [
        ("0", "start", "2 × cpu, deepspeed, revision abc"),
        ("300 – 600", "2 checkpoints", "newest: step-00000600"),
        ("600", "change", "rate: 1 then, 2 now"),
        ("600", "phase", "phase 1"),
        ("900", "checkpoint", "newest: step-00000900"),
    ]


def test_the_command_is_told_as_it_was_typed():
    started = {"engine": "deepspeed", "command": "--local_rank=0 a.yaml seed=2"}
    assert command_line(started) == "deepspeed pipeline/train.py a.yaml seed=2"
    local = {"engine": "local", "command": "train a.yaml"}
    assert command_line(local) == "lexmill train a.yaml"
