from __future__ import annotations

from pathlib import Path

import pytest
from corpora import make_text, prepare_config, run_stages, write_documents
from inspected import EVIL


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose every stage has run; nothing may be changed in it."""
    folder = tmp_path_factory.mktemp("prepared")
    write_documents(folder / "raw" / "a.txt", make_text(120))
    write_documents(folder / "raw" / "evil.txt", [EVIL])
    with (folder / "raw" / "evil.txt").open("ab") as file:
        file.write(b"\n\nbroken \xff\n")
    masked = {"kind": "masked"}
    examples = {
        "pairs": {
            "length": 32,
            "layout": {"kind": "pairs"},
            "pack": True,
            "corruption": masked,
            "mode": "static",
            "copies": 2,
        },
        "blocks": {"length": 64, "layout": {"kind": "blocks"}, "pack": True, "corruption": masked},
    }
    corpus = {"allowed_reject_share": 0.1}
    run_stages(prepare_config(folder, examples=examples, corpus=corpus))
    return folder / "recipe.yaml"
