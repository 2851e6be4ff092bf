"""The files of the engines' states, read by the names of the model's tensors.

    local/state.pt                               all of it
    deepspeed/state/
      mp_rank_00_model_states.pt                 stage 0: all of it
      *zero_pp_rank_R_mp_rank_00_optim_states.pt stages 1 to 3: what rank R owns
      zero_pp_rank_0_mp_rank_00_model_states.pt  stage 3: names and shapes, in the order of slices
    portable/NAME.safetensors, portable.json     what ``lexmill convert`` writes

Engines that own their tensors add ``optimizer.json``: the names in the order of the states, and
LAMB's steps by tensor. Files are mapped into memory, never read as a whole, and pickles only under
the allow-list. DeepSpeed need not be installed. Written against DeepSpeed 0.19.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.training.checkpoints.checkpoint import WEIGHTS_FILE, State
from pipeline.training.checkpoints.pickles import SAFE_GLOBALS
from pipeline.training.checkpoints.states import Count, Pieces, SavedState, tensor_steps
from pipeline.weights import save_weights
from preprocessing.storage import InputError, write_json

TAG = "state"
"""The folder that DeepSpeed writes to, below ``deepspeed``."""
LOCAL_FILE = "state.pt"
NAMES_FILE = "optimizer.json"
PORTABLE = "portable"
PORTABLE_FILE = "portable.json"

_TASK = "model."
"""What a name has before it where the engine knows the task, not the model."""

_MASTER = "master"
"""What the engine's own copy of a weight is called among the states here."""


def open_state(checkpoint: Path, state: State) -> SavedState:
    """The training state of a checkpoint, whatever engine, stage and number of ranks wrote it.

    Raises:
        InputError: a file is missing or damaged, or holds what it should not.
    """
    directory = checkpoint / state.engine
    try:
        weights = load_file(checkpoint / WEIGHTS_FILE)
    except FileNotFoundError:
        raise InputError(
            f"{checkpoint / WEIGHTS_FILE}: missing; a state that moves needs it on every host"
        ) from None
    if state.engine == PORTABLE:
        return _portable(directory, weights)
    if state.engine == "local":
        optimizer = _load(directory / LOCAL_FILE)["optimizer"]
        return _in_order(directory, optimizer, weights)
    folder = directory / TAG
    if state.zero_stage == 0:
        optimizer = _load(folder / "mp_rank_00_model_states.pt")["optimizer"]
        return _in_order(directory, optimizer, weights)
    assembly = _Assembly()
    if state.zero_stage == 3:
        shapes = _load(folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")["param_shapes"]
        for rank in range(state.world_size):
            _add_slices(assembly, _rank_file(folder, rank), rank, state.world_size, shapes)
    else:
        for rank in range(state.world_size):
            _add_overlaps(assembly, _rank_file(folder, rank))
    return assembly.state(directory, weights)


def write_names(directory: Path, names: Sequence[str], optimizer: torch.optim.Optimizer) -> None:
    """Write what an engine's own files do not say, on one rank.

    Args:
        directory: the engine's.
        names: of the tensors, in the order in which the optimizer saves their states.
        optimizer: may count steps by tensor.
    """
    facts = {"names": names, "tensor_steps": tensor_steps(optimizer)}
    write_json(directory / NAMES_FILE, facts)


def read_tensor_steps(directory: Path) -> Mapping[str, int]:
    """LAMB's steps by tensor; none where the checkpoint is older than they are."""
    path = directory / NAMES_FILE
    return json.loads(path.read_text())["tensor_steps"] if path.exists() else {}


def write_portable(directory: Path, saved: SavedState) -> None:
    """Write all but the weights, a file a tensor, so that no two are in memory at once."""
    directory.mkdir(parents=True)
    for name, moments in saved.moments.items():
        tensors = {key: pieces.read().view(pieces.shape) for key, pieces in moments.items()}
        save_weights(directory / f"{name}.safetensors", tensors)
    write_json(
        directory / PORTABLE_FILE,
        {
            "names": list(saved.moments),
            "counts": saved.counts,
            "tensor_steps": saved.tensor_steps,
        },
    )


def _portable(directory: Path, weights: Mapping[str, Tensor]) -> SavedState:
    try:
        facts = json.loads((directory / PORTABLE_FILE).read_text())
        moments = {
            name: {
                key: Pieces.whole(tensor)
                for key, tensor in load_file(directory / f"{name}.safetensors").items()
            }
            for name in facts["names"]
        }
    except FileNotFoundError as error:
        raise InputError(f"{error.filename}: missing; this checkpoint is not whole") from None
    return SavedState(
        weights, moments=moments, counts=facts["counts"], tensor_steps=facts["tensor_steps"]
    )


class _Assembly:
    """Pieces of tensors as they are come by, rank after rank."""

    def __init__(self) -> None:
        self._parts: dict[str, dict[str, list[Tensor]]] = {}
        self._counts: dict[str, dict[str, Count]] = {}

    def add(self, name: str, state: Mapping[str, Any], start: int, length: int) -> None:
        """The part of a flat tensor's state that is the next piece of tensor ``name``."""
        parts = self._parts.setdefault(name.removeprefix(_TASK), {})
        counts = self._counts.setdefault(name.removeprefix(_TASK), {})
        for key, value in state.items():
            if _is_count(key, value):
                counts[key] = _number(value)
            else:
                piece = value.reshape(-1)[start : start + length]
                parts.setdefault(key, []).append(piece)

    def state(self, directory: Path, weights: Mapping[str, Tensor]) -> SavedState:
        """The whole, if the pieces make whole tensors.

        Raises:
            InputError: some are missing.
        """
        whole = {
            name: {
                key: Pieces(tuple(weights[name].shape), tuple(pieces))
                for key, pieces in parts.items()
            }
            for name, parts in self._parts.items()
        }
        for name, states in whole.items():
            for pieces in states.values():
                if pieces.numel != weights[name].numel():
                    raise InputError(
                        f"{directory}: {pieces.numel} of the {weights[name].numel()} elements of "
                        f"{name} are here; DeepSpeed keeps them in a way that is not known"
                    )
        return SavedState(
            weights,
            masters={name: states[_MASTER] for name, states in whole.items()},
            moments={
                name: {key: pieces for key, pieces in states.items() if key != _MASTER}
                for name, states in whole.items()
            },
            counts=self._counts,
            tensor_steps=read_tensor_steps(directory),
        )


def _add_overlaps(assembly: _Assembly, path: Path) -> None:
    """Stages 1 and 2: a cut through each group's tensors, and where each tensor lies in it."""
    saved = _load(path)["optimizer_state_dict"]
    states = saved["base_optimizer_state"]["state"]
    groups = zip(
        saved["single_partition_of_fp32_groups"], saved["param_slice_mappings"], strict=True
    )
    for number, (flat, places) in enumerate(groups):
        state = {_MASTER: flat, **states.get(number, {})}
        for name, place in places.items():
            assembly.add(name, state, place.start, place.numel)


def _add_slices(
    assembly: _Assembly,
    path: Path,
    rank: int,
    ranks: int,
    shapes: Sequence[Mapping[str, torch.Size]],
) -> None:
    """Stage 3: an equal slice of every tensor of a sub-group; the last may end in padding."""
    saved = _load(path)["optimizer_state_dict"]
    states = saved["optimizer_state_dict"]["state"]
    for number, (flat, group) in enumerate(zip(saved["fp32_flat_groups"], shapes, strict=True)):
        state = {_MASTER: flat, **states.get(number, {})}
        start = 0
        for name, shape in group.items():
            slice_length = -(-shape.numel() // ranks)
            length = max(0, min(slice_length, shape.numel() - rank * slice_length))
            assembly.add(name, state, start, length)
            start += slice_length


def _in_order(
    directory: Path, optimizer: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> SavedState:
    """An optimizer's ``state_dict`` over whole tensors."""
    path = directory / NAMES_FILE
    if not path.exists():
        raise InputError(
            f"{path}: missing: lexmill 0.1 did not say whose states these are; resume once as the "
            "run was, and move it from the checkpoint after that"
        )
    names = json.loads(path.read_text())["names"]
    states = {names[number]: state for number, state in optimizer["state"].items()}
    return SavedState(
        weights,
        moments={
            name: {
                key: Pieces.whole(value)
                for key, value in state.items()
                if not _is_count(key, value)
            }
            for name, state in states.items()
        },
        counts={
            name: {key: _number(value) for key, value in state.items() if _is_count(key, value)}
            for name, state in states.items()
        },
        tensor_steps=read_tensor_steps(directory),
    )


def _rank_file(folder: Path, rank: int) -> Path:
    """A rank's file; DeepSpeed says the precision before its name, if it is a lower one."""
    found = list(folder.glob(f"*zero_pp_rank_{rank}_mp_rank_00_optim_states.pt"))
    if len(found) != 1:
        raise InputError(f"{folder}: the state of rank {rank} is missing")
    return found[0]


def _load(path: Path) -> dict[str, Any]:
    """A pickle's tensors, mapped into memory, and its plain values."""
    known: list[Any] = [(_Record, name) for name in SAFE_GLOBALS]
    try:
        with torch.serialization.safe_globals(known):
            saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: missing; this checkpoint is not whole") from None
    except (RuntimeError, pickle.UnpicklingError, OSError, ValueError) as error:
        raise InputError(f"{path}: damaged, or refers to what may run code: {error}") from None
    return dict(saved)


class _Record:
    """What stands for DeepSpeed's own small classes: their attributes, and nothing that runs."""

    def __init__(self, *_: object) -> None:
        pass


def _is_count(key: str, value: object) -> bool:
    return key == "step" or not isinstance(value, Tensor)


def _number(value: Any) -> Count:
    number: Count = value.item() if isinstance(value, Tensor) else value
    return number
