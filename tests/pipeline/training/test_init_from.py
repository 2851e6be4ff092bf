"""A run that begins with weights, or with all of a training, from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from small_run import TOTAL_STEPS, Job, largest_difference, records, run_jobs, weights

from configs.schema import ConfigError
from configs.schema import load as load_config
from pipeline.batch import IGNORED
from pipeline.commands import evaluate_run, export_run, import_folder
from pipeline.data import Deal, load
from pipeline.opening import open_data
from pipeline.settings import Run, decode_run
from pipeline.training.checkpoints.initial import Beginning, find_beginning, idle_patterns, resolve
from pipeline.training.hosts import Host
from preprocessing.storage import InputError

STEPS = 10
PLAIN = (
    "model.dropout=0",
    "model.attention_dropout=0",
    f"phases=[{{examples: pairs, steps: {STEPS}, batch_rows: 24, learning_rate: 6e-3}}]",
)
SHAPE = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
}
SOURCES = ("ours", "theirs")
RANKS = {
    "stage1": ("deepspeed.zero_stage=1",),
    "stage3": ("deepspeed.zero_stage=3",),
    "stage3-zero-init": ("deepspeed.zero_stage=3", "deepspeed.zero_init=true"),
}


def decode(recipe: Path, output: Path, *overrides: str) -> Run:
    return decode_run(load_config(recipe, [f"output.directory={output}", *overrides]))


def init_from(folder: Path, what: str = "weights", **patterns: str) -> str:
    told = "".join(f", {name}: ['{pattern}']" for name, pattern in patterns.items())
    return f"train.init_from={{checkpoint: {folder}, what: {what}{told}}}"


@pytest.fixture(scope="module")
def runs(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``ours`` and ``theirs`` imported, and all trainings that begin with them."""
    root = tmp_path_factory.mktemp("begun")
    local = "train.engine=local"
    kept = (local, "train.keep_checkpoints=9")
    run_jobs(recipe, [Job(root / "first", kept)], ranks=1)
    first = root / "first" / "checkpoints"

    run = decode(recipe, root / "first")
    export_run(run, None)
    import_folder(root / "first" / "export", root / "ours")
    torch.manual_seed(5)
    model = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))
    model.save_pretrained(root / "published")
    for path in (run.preparation.tokenizer_directory).glob("*.*"):
        shutil.copy(path, root / "published")
    import_folder(root / "published", root / "theirs")

    branch = init_from(first / "step-00000008", "everything")
    moved = root / "moved-away"
    shutil.copytree(first / "step-00000020", moved)
    jobs = [
        Job(root / "branch", (*kept, branch)),
        Job(root / "resumed", (*PLAIN, local, init_from(moved)), stop_at=6),
        Job(root / "unresumed", (*PLAIN, local, init_from(root / "first"))),
    ]
    run_jobs(recipe, jobs, ranks=1)
    shutil.rmtree(moved)
    run_jobs(recipe, [Job(root / "resumed", (*PLAIN, local, init_from(moved)))], ranks=1)
    begun = [
        Job(root / f"{source}-{name}", (*PLAIN, *options, init_from(root / source)))
        for name, options in RANKS.items()
        for source in SOURCES
    ]
    run_jobs(recipe, [*begun, Job(root / "branch3", (branch, *RANKS["stage3"]))], ranks=2)
    return root


def first_loss(run: Run, folder: Path) -> float:
    """The loss of transformers' model on the rows of the first step."""
    model = transformers.BertForPreTraining.from_pretrained(folder).eval()
    deal = Deal(0, 1, 24, 8, rank=0, world_size=1)
    sums, counts = torch.zeros(2), torch.zeros(2)
    for batch, _, _ in next(load(open_data(run).phases[0], deal, workers=0, pin=False)):
        with torch.no_grad():
            output = model(
                input_ids=batch.ids.long(),
                token_type_ids=batch.segment_ids.long(),
                position_ids=batch.positions.long(),
                attention_mask=(batch.sequence_ids > 0).long(),
            )
        rows = torch.arange(len(batch.ids)) * batch.ids.shape[1]
        assert torch.equal(batch.targets["next_sentence"].indices, rows)  # one pair a row
        found = {
            "masked_lm": output.prediction_logits.flatten(0, 1)[batch.targets["masked_lm"].indices],
            "next_sentence": output.seq_relationship_logits,
        }
        for number, (name, logits) in enumerate(found.items()):
            labels = batch.targets[name].labels.long()
            sums[number] += torch.nn.functional.cross_entropy(
                logits, labels, ignore_index=IGNORED, reduction="sum"
            )
            counts[number] += (labels != IGNORED).sum()
    return float((sums / counts).sum())


@pytest.mark.parametrize("name", RANKS)
@pytest.mark.parametrize("source", SOURCES)
def test_first_loss_is_that_of_the_model_and_falls(
    recipe: Path, runs: Path, source: str, name: str
) -> None:
    folder = {"ours": runs / "first" / "export", "theirs": runs / "published"}[source]
    losses = [record["loss"] for record in records(runs / f"{source}-{name}", "train")]

    expected = first_loss(decode(recipe, runs / "unused", *PLAIN), folder)
    print(f"{source} {name}: {abs(losses[0] - expected):.1e}")
    assert losses[0] == pytest.approx(expected, abs=1e-5)  # measured: 8.3e-7
    assert sum(losses[-3:]) / 3 < losses[0] - 0.05


@pytest.mark.parametrize("source", SOURCES)
def test_it_goes_on_the_same_at_every_stage(runs: Path, source: str) -> None:
    at_stage1 = weights(runs / f"{source}-stage1")

    for name in ("stage3", "stage3-zero-init"):
        assert largest_difference(weights(runs / f"{source}-{name}"), at_stage1) <= 1e-5


def test_beginning_is_recorded(runs: Path) -> None:
    (event,) = [
        event for event in records(runs / "theirs-stage3", "event") if event["event"] == "init_from"
    ]

    assert event["path"] == str(runs / "theirs")
    assert (event["taken"], event["missing"], event["unused"]) == ("weights", [], [])
    newest = runs / "theirs-stage3" / "checkpoints" / f"step-{STEPS:08d}"
    leaves = json.loads((newest / "state.json").read_text())["leaves"]
    assert leaves["train.init_from.checkpoint"] == str(runs / "theirs")


def test_resume_does_not_begin_again(runs: Path) -> None:
    resumed, unresumed = weights(runs / "resumed"), weights(runs / "unresumed")

    assert all(resumed[name].equal(unresumed[name]) for name in unresumed)
    events = [record["event"] for record in records(runs / "resumed", "event")]
    assert events.count("init_from") == 1


def test_branch_with_everything_ends_where_the_run_did(runs: Path) -> None:
    branch, first = weights(runs / "branch"), weights(runs / "first")

    assert all(branch[name].equal(first[name]) for name in first)
    assert [record["step"] for record in records(runs / "branch", "train")] == list(
        range(9, TOTAL_STEPS + 1)
    )
    ids = [json.loads((runs / name / "run.json").read_text()) for name in ("branch", "first")]
    assert ids[0] != ids[1]
    assert largest_difference(weights(runs / "branch3"), first) <= 1e-5


def test_imported_folder_is_evaluated_and_exported(recipe: Path, runs: Path) -> None:
    run = decode(recipe, runs / "scored")

    ours = evaluate_run(run, runs / "ours")["sets"]
    trained = evaluate_run(run, resolve(runs / "first"))["sets"]
    assert ours == trained
    assert ours != evaluate_run(run, runs / "theirs")["sets"]
    exported = Path(export_run(run, runs / "theirs")["directory"])
    again, published = (
        load_file(folder / "model.safetensors") for folder in (exported, runs / "published")
    )
    assert all(again[name].equal(tensor) for name, tensor in published.items())


# -- what does not fit -------------------------------------------------------------------------


def begin(recipe: Path, root: Path, *overrides: str) -> tuple[Run, Beginning]:
    run = decode(recipe, root / "unused", *overrides)
    found = find_beginning(run, Host(0, 1, (0,)))
    assert found is not None
    return run, found


def test_every_tensor_that_does_not_fit_is_named(recipe: Path, runs: Path) -> None:
    changed = (
        "model.num_layers=3",
        "model.vocab_size=330",
        "model.next_sentence=false",
        "objectives=[{kind: masked_lm}]",
    )

    with pytest.raises(ConfigError) as caught:
        begin(recipe, runs, *changed, init_from(runs / "ours"))
    problems = caught.value.problems
    assert "  embeddings.word.weight: 320 x 32 in the checkpoint, 330 x 32 in the model" in problems
    assert "  blocks.2.feed_forward.up.bias: nothing in the checkpoint, 64 in the model" in problems
    head = "  heads.next_sentence.classifier.weight: 2 x 32 in the checkpoint, nothing in the model"
    assert head in problems
    assert len(problems) == 1 + 16 + 4 + 2 + 1
    assert "train.init_from.allow_missing" in problems[-1]


def test_named_tensors_may_differ(recipe: Path, runs: Path) -> None:
    run, begun = begin(
        recipe,
        runs,
        "model.num_layers=3",
        init_from(runs / "ours", allow_missing="blocks.2.*", allow_unused="heads.other.*"),
    )

    assert {name.rsplit(".", 3)[0] for name in begun.facts["missing"]} <= {
        "blocks.2",
        "blocks.2.attention",
        "blocks",
    }
    assert len(begun.facts["missing"]) == 16
    assert not begun.facts["unused"]
    assert "blocks.1.feed_forward.up.bias" in begun.weights.weights
    assert idle_patterns(run, begun) == ["heads.other.*"]


def test_tensor_of_another_shape_must_be_named_twice(recipe: Path, runs: Path) -> None:
    larger = "model.vocab_size=330"
    words = ("embeddings.word.weight", "heads.masked_lm.decoder.bias")

    with pytest.raises(ConfigError, match="330 x 32 in the model"):
        begin(recipe, runs, larger, init_from(runs / "ours", allow_missing="*"))
    _, begun = begin(
        recipe, runs, larger, init_from(runs / "ours", allow_missing="*", allow_unused="*")
    )
    assert begun.facts["missing"] == begun.facts["unused"] == list(words)


def test_other_vocabulary_is_refused(recipe: Path, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(runs / "ours", folder)
    (folder / "tokenizer" / "tokenizer.json").unlink()
    pieces = (folder / "tokenizer" / "vocab.txt").read_text().splitlines()

    _, begun = begin(recipe, runs, init_from(folder))  # vocab.txt says the same
    assert not begun.facts["missing"]
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join([*pieces[:-2], *pieces[:-3:-1]]))
    with pytest.raises(ConfigError, match=r"kind: existing, path: .*/other/tokenizer"):
        begin(recipe, runs, init_from(folder))
    (folder / "tokenizer" / "vocab.txt").unlink()
    with pytest.raises(InputError, match="that says whose embeddings these are"):
        begin(recipe, runs, init_from(folder))


def test_what_is_no_checkpoint_is_refused(recipe: Path, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lexmill import .*/published FOLDER"):
        begin(recipe, runs, init_from(runs / "published"))
    with pytest.raises(InputError, match="neither a checkpoint, nor a run's output directory"):
        begin(recipe, runs, init_from(tmp_path))
    with pytest.raises(InputError, match=r"train\.init_from\.what=weights"):
        begin(recipe, runs, init_from(runs / "ours", "everything"))
    with pytest.raises(ConfigError, match="goes on with the same model"):
        decode(recipe, tmp_path, init_from(runs / "ours", "everything", allow_missing="*"))


def test_damage_is_found_before_it_is_trained_on(recipe: Path, runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(resolve(runs / "first"), folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    for what in ("weights", "everything"):
        with pytest.raises(InputError, match="wrong checksum"):
            begin(recipe, runs, init_from(folder, what))
