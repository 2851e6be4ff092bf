"""Families with another one's class in transformers: what it has no place for, and who they are."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from family_cases import FAMILIES
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, processors

from pipeline.huggingface.export import export_model
from pipeline.huggingface.form import FAMILY
from pipeline.huggingface.importing import import_model
from pipeline.huggingface.names import OUR_FILE, TensorError
from pipeline.huggingface.proof import load_strictly
from pipeline.models import build_model
from pipeline.models.bert import BertConfig

NAMES = ("macbert", "spanbert")
HEADS = {"macbert": "heads.sentence_order.", "spanbert": "heads.span_boundary."}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each of them in a folder of its name, beside ``<name>.pt``."""
    root = tmp_path_factory.mktemp("exports")
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    letters = {letter: 5 + at for at, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
    tokenizer = Tokenizer(models.WordPiece({**special, **letters}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    (root / "tokenizer").mkdir()
    tokenizer.save(str(root / "tokenizer" / "tokenizer.json"))
    for name in NAMES:
        config = FAMILIES[name].tiny
        torch.manual_seed(0)
        model = build_model(config)
        torch.save(model.state_dict(), root / f"{name}.pt")
        export_model(model, config, root / "tokenizer", root / name, "# Card\n")
    return root


@pytest.fixture
def folder(request: pytest.FixtureRequest, exports: Path, tmp_path: Path) -> Path:
    """A copy that may be spoiled."""
    return Path(shutil.copytree(exports / request.param, tmp_path / request.param))


EACH = pytest.mark.parametrize("folder", NAMES, indirect=True)


@EACH
def test_an_export_comes_back_whole(exports: Path, folder: Path) -> None:
    assert load_strictly(folder).__class__ is transformers.BertForMaskedLM
    config, state = import_model(folder)
    assert config == FAMILIES[folder.name].tiny
    expected = torch.load(exports / f"{folder.name}.pt")
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


@EACH
def test_the_own_file_holds_what_transformers_does_not_know(folder: Path) -> None:
    own = load_file(folder / OUR_FILE)
    assert all(name.startswith(HEADS[folder.name]) for name in own)
    assert not own.keys() & load_file(folder / "model.safetensors").keys()


@EACH
def test_without_the_own_file_the_import_says_what_to_do(folder: Path) -> None:
    (folder / OUR_FILE).unlink()
    with pytest.raises(ValueError, match=rf"no {OUR_FILE} here.*take {FAMILY} out of config.json"):
        import_model(folder)


@EACH
def test_without_its_family_the_folder_is_a_bert(folder: Path) -> None:
    (folder / OUR_FILE).unlink()
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    del fields[FAMILY]
    path.write_text(json.dumps(fields))
    config, state = import_model(folder)
    assert isinstance(config, BertConfig)
    assert config.outputs == ("masked_lm",)
    ours = import_model_of(folder.name)
    assert state.keys() == {name for name in ours if not name.startswith(HEADS[folder.name])}


def import_model_of(name: str) -> list[str]:
    """The names of a family's tensors."""
    with torch.device("meta"):
        return list(build_model(FAMILIES[name].tiny).state_dict())


@EACH
def test_what_transformers_saved_again_keeps_its_family(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(again)
    assert json.loads((again / "config.json").read_text())[FAMILY] == folder.name
    shutil.copy(folder / OUR_FILE, again)
    assert import_model(again)[0] == FAMILIES[folder.name].tiny


@EACH
def test_a_family_that_nobody_knows_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {FAMILY: "sesame"}))
    with pytest.raises(ValueError, match="lexmill_family is 'sesame'; expected one of"):
        import_model(folder)


def test_a_head_of_another_shape_is_refused(exports: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exports / "spanbert", tmp_path / "spanbert")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_span_index": 9}))
    with pytest.raises(TensorError, match=r"index\.weight: shape \(15, 10\), expected \(9, 10\)"):
        import_model(folder)


def test_a_bert_is_still_a_bert(exports: Path, tmp_path: Path) -> None:
    config = BertConfig(
        family="bert",
        next_sentence=False,
        vocab_size=100,
        hidden_size=16,
        num_layers=1,
        num_heads=4,
        intermediate_size=32,
    )
    model = build_model(config)
    export_model(model, config, exports / "tokenizer", tmp_path / "out", "")
    assert not (tmp_path / "out" / OUR_FILE).exists()
    assert import_model(tmp_path / "out")[0] == replace(config)
