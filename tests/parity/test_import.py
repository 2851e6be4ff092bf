import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pipeline.commands import import_folder
from pipeline.huggingface.importing import import_model
from pipeline.huggingface.names import TensorError
from pipeline.models.bert import Bert

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
}


def save(kind: type, directory: Path) -> Any:
    torch.manual_seed(0)
    model = kind(transformers.BertConfig(**SHAPE))
    model.save_pretrained(directory)
    return model


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def rewrite_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("kind", "next_sentence"),
    [(transformers.BertForPreTraining, True), (transformers.BertForMaskedLM, False)],
)
def test_what_transformers_saved_is_read(tmp_path: Path, kind: type, next_sentence: bool) -> None:
    theirs = save(kind, tmp_path)
    config, state = import_model(tmp_path)
    assert config.next_sentence is next_sentence
    model = Bert(config)
    model.load_state_dict(state)
    table = theirs.bert.embeddings.word_embeddings.weight
    assert torch.equal(model.heads["masked_lm"].decoder.weight, table)


def test_a_masked_lm_with_the_other_head_keeps_it(tmp_path: Path) -> None:
    save(transformers.BertForPreTraining, tmp_path)
    rewrite_config(tmp_path, architectures=["BertForMaskedLM"])
    assert import_model(tmp_path)[0].next_sentence


def test_names_of_older_checkpoints_are_read(tmp_path: Path) -> None:
    save(transformers.BertForPreTraining, tmp_path)
    expected = import_model(tmp_path)[1]

    def age(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if ".LayerNorm." in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma")
            tensors[old.replace("LayerNorm.bias", "LayerNorm.beta")] = tensors.pop(name)
        tensors["bert.embeddings.position_ids"] = torch.arange(512).unsqueeze(0)
        words = tensors["bert.embeddings.word_embeddings.weight"]
        tensors["cls.predictions.decoder.weight"] = words.clone()

    rewrite(tmp_path, age)
    state = import_model(tmp_path)[1]
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_what_published_folders_hold_beside_the_model_is_left_aside(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = transformers.RobertaConfig(
        **SHAPE, type_vocab_size=1, max_position_embeddings=34, layer_norm_eps=1e-5
    )
    transformers.RobertaForMaskedLM(settings).save_pretrained(tmp_path)
    expected = import_model(tmp_path)[1]
    beside = {
        "roberta.embeddings.position_ids": torch.arange(34).unsqueeze(0),
        "roberta.pooler.dense.weight": torch.ones(16, 16),
        "roberta.pooler.dense.bias": torch.ones(16),
    }
    rewrite(tmp_path, lambda tensors: tensors.update(beside))
    config, state = import_model(tmp_path)
    assert config.max_positions == 32
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("files", "kept"),
    [
        (["vocab.txt"], ["vocab.txt"]),
        (["tokenizer.json", "vocab.txt"], ["tokenizer.json", "vocab.txt"]),
        (["tokenizer.json", "tokenizer.model"], ["tokenizer.model"]),
        ([], []),
    ],
)
def test_the_tokenizer_comes_along(tmp_path: Path, files: list[str], kept: list[str]) -> None:
    save(transformers.BertForMaskedLM, tmp_path / "theirs")
    for name in files:
        (tmp_path / "theirs" / name).write_text(name)
    import_folder(tmp_path / "theirs", tmp_path / "ours")
    found = {path.name: path.read_text() for path in (tmp_path / "ours" / "tokenizer").iterdir()}
    assert found == {name: name for name in kept}


def test_half_precision_is_read_as_fp32(tmp_path: Path) -> None:
    save(transformers.BertForMaskedLM, tmp_path)
    rewrite(tmp_path, lambda t: t.update({name: x.half() for name, x in t.items()}))
    assert {tensor.dtype for tensor in import_model(tmp_path)[1].values()} == {torch.float32}


def test_every_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    save(transformers.BertForPreTraining, tmp_path)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["bert.pooler.dense.bias"]
        tensors["classifier.weight"] = torch.zeros(2, 16)
        tensors["cls.seq_relationship.bias"] = torch.zeros(3)
        tensors["cls.predictions.decoder.weight"] = torch.zeros(50, 16)

    rewrite(tmp_path, spoil)
    with pytest.raises(TensorError) as caught:
        import_model(tmp_path)
    assert caught.value.problems == (
        "bert.pooler.dense.bias: this tensor is missing",
        "classifier.weight: unknown tensor",
        "cls.predictions.decoder.weight: differs from bert.embeddings.word_embeddings.weight, "
        "which it must be tied to",
        "cls.seq_relationship.bias: shape (3,), expected (2,)",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel.*expected one of .*BertForPre"),
        ({"architectures": None}, "is not supported"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is supported"),
        ({"is_decoder": True}, "is_decoder is True; only False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"hidden_act": "swish"}, "'gelu', 'gelu_new' or 'relu'"),
    ],
)
def test_models_that_are_no_bert_of_ours_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    save(transformers.BertForMaskedLM, tmp_path)
    rewrite_config(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        import_model(tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    save(transformers.BertForMaskedLM, tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"there is no model\.safetensors here"):
        import_model(tmp_path)


def test_nothing_of_ours_needs_transformers_to_be_imported() -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "import pipeline.huggingface.export, pipeline.huggingface.importing"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
