import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from pipeline.huggingface.bert import answers
from pipeline.huggingface.export import ExportError, ExportReport, export_model
from pipeline.huggingface.importing import import_model
from pipeline.huggingface.names import TensorError
from pipeline.huggingface.proof import compare_logits, compare_tokenizers, load_strictly
from pipeline.huggingface.tokenizer import write_tokenizer
from pipeline.models.bert import Bert, BertConfig

CONFIG = BertConfig(
    family="bert", vocab_size=100, hidden_size=16, num_layers=2, num_heads=4, intermediate_size=32
)
ANSWERS = answers(CONFIG)


def model_of(config: BertConfig, perturb) -> Bert:
    torch.manual_seed(0)
    model = Bert(config)
    perturb(model.parameters(), seed=1)
    return model


@pytest.fixture
def exported(tmp_path: Path, tokenizer_directory: Path, perturb) -> tuple[Bert, ExportReport]:
    model = model_of(CONFIG, perturb)
    return model, export_model(model, CONFIG, tokenizer_directory, tmp_path / "out", "# Card\n")


def test_the_folder_is_whole_and_proved(
    exported: tuple[Bert, ExportReport], tmp_path: Path
) -> None:
    model, report = exported
    assert report.directory == tmp_path / "out"
    assert report.architecture == "BertForPreTraining"
    assert report.num_parameters == sum(p.numel() for p in model.parameters())
    assert report.max_difference < 1e-5  # measured: 6e-7
    assert sorted(path.name for path in report.directory.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert (report.directory / "README.md").read_text() == "# Card\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tokenizer"]
    assert report.directory.stat().st_mode & 0o055 == 0o055


def test_names_are_those_that_transformers_saves(
    exported: tuple[Bert, ExportReport], tmp_path: Path
) -> None:
    directory = exported[1].directory
    transformers.BertForPreTraining.from_pretrained(directory).save_pretrained(tmp_path / "theirs")
    with safe_open(directory / "model.safetensors", "pt") as file:
        ours = set(file.keys())
        assert file.metadata() == {"format": "pt"}
    theirs = set(load_file(tmp_path / "theirs" / "model.safetensors"))
    assert ours - theirs == {"cls.predictions.decoder.bias"}
    assert theirs - ours == set()
    fields = json.loads((directory / "config.json").read_text())
    saved = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert {name: saved.get(name) for name in fields if name != "position_embedding_type"} == {
        name: value for name, value in fields.items() if name != "position_embedding_type"
    }


def test_import_gives_back_the_identical_tensors(exported: tuple[Bert, ExportReport]) -> None:
    model, report = exported
    config, state = import_model(report.directory)
    assert config == CONFIG
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_the_generator_of_a_training_is_left_alone(
    tmp_path: Path, tokenizer_directory: Path, perturb
) -> None:
    model = model_of(CONFIG, perturb)
    before = torch.get_rng_state()
    export_model(model, CONFIG, tokenizer_directory, tmp_path / "out", "")
    import_model(tmp_path / "out")
    assert torch.equal(before, torch.get_rng_state())


def test_without_next_sentence_it_is_a_masked_lm(
    tmp_path: Path, tokenizer_directory: Path, perturb
) -> None:
    config = replace(CONFIG, next_sentence=False)
    model = model_of(config, perturb)
    report = export_model(model, config, tokenizer_directory, tmp_path / "out", "")
    assert report.architecture == "BertForMaskedLM"
    assert import_model(tmp_path / "out")[0] == config


def test_every_setting_survives_the_round_trip(
    tmp_path: Path, tokenizer_directory: Path, perturb
) -> None:
    config = BertConfig(
        family="bert",
        vocab_size=104,
        hidden_size=12,
        num_layers=1,
        num_heads=3,
        intermediate_size=20,
        max_positions=40,
        num_segments=3,
        activation="gelu_new",
        dropout=0.2,
        attention_dropout=0.05,
        layer_norm_eps=1e-6,
        initializer_std=0.03,
    )
    export_model(model_of(config, perturb), config, tokenizer_directory, tmp_path / "out", "")
    assert import_model(tmp_path / "out")[0] == config


@pytest.mark.parametrize("lowercase", [True, False])
def test_the_tokenizer_gives_the_same_ids_in_transformers(
    tmp_path: Path, make_tokenizer, perturb, lowercase: bool
) -> None:
    source = make_tokenizer(tmp_path / "source", lowercase=lowercase)
    export_model(model_of(CONFIG, perturb), CONFIG, source, tmp_path / "out", "")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = Tokenizer.from_file(str(source / "tokenizer.json"))
    text = "The QUICK brown é fox, 東 ﬁ"
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert theirs(text, "dog")["token_type_ids"] == ours.encode(text, "dog").type_ids
    assert theirs.model_max_length == 512
    assert (theirs.pad_token_id, theirs.mask_token_id) == (0, 4)
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert settings["do_lower_case"] is lowercase


def test_an_earlier_export_is_replaced_and_anything_else_is_not(
    exported: tuple[Bert, ExportReport], tokenizer_directory: Path, tmp_path: Path
) -> None:
    model, report = exported
    export_model(model, CONFIG, tokenizer_directory, report.directory, "# Second\n")
    assert (report.directory / "README.md").read_text() == "# Second\n"
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds something else than an export"):
        export_model(model, CONFIG, tokenizer_directory, other, "")
    assert (other / "thesis.tex").exists()


def test_a_failed_proof_leaves_the_earlier_export_and_nothing_else(
    exported: tuple[Bert, ExportReport], tokenizer_directory: Path, tmp_path: Path
) -> None:
    model, report = exported
    with torch.no_grad():
        model.heads["next_sentence"].classifier.weight[0, 0] = torch.nan
    with pytest.raises(ExportError, match="next_sentence: logits differ by nan"):
        export_model(model, CONFIG, tokenizer_directory, report.directory, "# Broken\n")
    assert (report.directory / "README.md").read_text() == "# Card\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "tokenizer"]


def test_the_proof_finds_two_tensors_exchanged(exported: tuple[Bert, ExportReport]) -> None:
    model, report = exported
    path = report.directory / "model.safetensors"
    tensors = load_file(path)
    layer = "bert.encoder.layer.0.attention.self"
    query, key = f"{layer}.query.weight", f"{layer}.value.weight"
    tensors[query], tensors[key] = tensors[key], tensors[query]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match="masked_lm: logits differ by"):
        compare_logits(CONFIG, model.state_dict(), report.directory, ANSWERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("cls.seq_relationship.bias"), "missing_keys.*cls.seq_relationship.bias"),
        (lambda t: t.update(extra=torch.zeros(1)), "unexpected_keys.*extra"),
    ],
)
def test_the_proof_names_tensors_that_do_not_fit(
    exported: tuple[Bert, ExportReport], change, message: str
) -> None:
    path = exported[1].directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=message):
        load_strictly(exported[1].directory)


def test_the_proof_finds_other_ids(
    exported: tuple[Bert, ExportReport], tmp_path: Path, make_tokenizer
) -> None:
    cased = make_tokenizer(tmp_path / "cased", lowercase=False)
    with pytest.raises(ExportError, match="other ids for 'The quick"):
        compare_tokenizers(cased, exported[1].directory, segments=True)


def test_an_export_with_other_ids_is_not_left_behind(
    tmp_path: Path, make_tokenizer, perturb, monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = make_tokenizer(tmp_path / "lower", lowercase=True)
    cased = make_tokenizer(tmp_path / "cased", lowercase=False)
    monkeypatch.setattr(
        "pipeline.huggingface.export.write_tokenizer",
        lambda source, *rest, segments: write_tokenizer(lower, *rest, segments=segments),
    )
    with pytest.raises(ExportError, match="other ids"):
        export_model(model_of(CONFIG, perturb), CONFIG, cased, tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_a_model_of_another_shape_is_refused(
    tmp_path: Path, tokenizer_directory: Path, perturb
) -> None:
    shallow = model_of(replace(CONFIG, num_layers=1), perturb)
    with pytest.raises(
        TensorError, match=r"blocks\.1\.attention\.key\.bias: this tensor is missing"
    ):
        export_model(shallow, CONFIG, tokenizer_directory, tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_does_not_fit_is_refused(
    tmp_path: Path, tokenizer_directory: Path, perturb
) -> None:
    small = replace(CONFIG, vocab_size=20)
    with pytest.raises(ValueError, match="and the model 20 embeddings"):
        export_model(model_of(small, perturb), small, tokenizer_directory, tmp_path / "out", "")
    with pytest.raises(ValueError, match=r"tokenizer.json: is missing; run the tokenizer stage"):
        export_model(model_of(small, perturb), small, tmp_path, tmp_path / "out", "")
