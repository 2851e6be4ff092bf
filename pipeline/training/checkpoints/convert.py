"""A checkpoint in a form that any engine loads, at any stage and on any number of ranks.

Runs move by themselves; this form is for moves by hand: to an archive, to a machine that does not
have DeepSpeed, or to hosts without a shared file system, none of which has all ranks' parts.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from pipeline.training.checkpoints.checkpoint import (
    CONFIG_FILE,
    MEMORY_FILE,
    STATE_FILE,
    STATE_VERSION,
    TOKENIZER,
    WEIGHTS_FILE,
    read_state,
    to_record,
)
from pipeline.training.checkpoints.integrity import find_damage, force, list_files, seal
from pipeline.training.checkpoints.state_files import PORTABLE, open_state, write_portable
from preprocessing.storage import InputError, rename, write_json


def convert(checkpoint: Path, output: Path) -> Path:
    """Write a checkpoint's portable form to a new folder; it stands there whole or not at all.

    Raises:
        InputError: the checkpoint is damaged, or something stands at the place.
    """
    if output.exists():
        raise InputError(f"{output}: stands already; name a new folder")
    state = read_state(checkpoint)
    if problem := find_damage(checkpoint, state.files, state.files):
        raise InputError(problem)
    saved = open_state(checkpoint, state)
    writing = output.with_name(f".{output.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    write_portable(writing / PORTABLE, saved)
    for name in (WEIGHTS_FILE, CONFIG_FILE, *({MEMORY_FILE} & state.files.keys())):
        shutil.copyfile(checkpoint / name, writing / name)
    shutil.copytree(checkpoint / TOKENIZER, writing / TOKENIZER)
    files = seal(writing, list_files(writing))
    # Of no number of ranks: there are no parts that one of them might lack.
    portable = dataclasses.replace(
        state,
        version=STATE_VERSION,
        engine=PORTABLE,
        world_size=0,
        zero_stage=None,
        parts=(),
        files=files,
    )
    write_json(writing / STATE_FILE, to_record(portable))
    for directory in (writing / PORTABLE, writing / TOKENIZER, writing):
        force(directory)
    rename(writing, output)
    return output
