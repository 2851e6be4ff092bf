"""Where a run goes on: the newest checkpoint that every host has or can fetch, and all of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline.training.agreement import Agreed, exchange, refuse
from pipeline.training.checkpoints.checkpoint import Checkpoints, State, read_state
from pipeline.training.checkpoints.integrity import find_damage
from pipeline.training.checkpoints.pickles import check_pickle
from pipeline.training.checkpoints.remote import RemoteCheckpoints
from pipeline.training.hosts import Host
from preprocessing.storage import InputError


@dataclass(frozen=True)
class Offer:
    """What one host can go on from.

    Attributes:
        newest: the step that ``latest`` names; nothing after it counts.
        usable: steps up to it that hold what the host's ranks need.
    """

    newest: int | None
    usable: frozenset[int]


def find_start(
    checkpoints: Checkpoints, remote: RemoteCheckpoints | None, host: Host
) -> tuple[Path, State] | None:
    """The checkpoint to go on from, every file of it verified; None: start anew. Collective.

    A host that lacks it fetches it; one that has a newer one is set back, and says so.

    Raises:
        Agreed: damage names the file, and how to go back to an older checkpoint.
    """
    offer, stored = None, None
    with host.together():
        offer = _offer(checkpoints, host) if host.leads else None
        stored = remote.steps() if remote and host.rank == 0 else None
    offers = {rank: said for rank, said in enumerate(exchange(offer)) if said}
    step = choose_step(offers, exchange(stored)[0] or [])
    if step is None:
        return None
    path = checkpoints.path(step)
    with host.together():
        if offer is not None:
            _take(step, offer, checkpoints, remote)
    with host.together():
        state = read_state(path)
    verify(path, state, checkpoints, host, remote)
    return path, state


def choose_step(offers: dict[int, Offer], stored: list[int]) -> int | None:
    """The newest step that every host has or can fetch from the store; None where there is none.

    >>> old, new = Offer(8, frozenset([4, 8])), Offer(12, frozenset([8, 12]))
    >>> choose_step({0: new, 2: old}, [])
    8
    >>> choose_step({0: new, 2: Offer(None, frozenset())}, [4, 8, 12, 16])
    12

    Args:
        offers: of each host, by its first rank.
        stored: steps that stand in the object store.

    Raises:
        Agreed: some host has a checkpoint, and there is none that all could go on from.
    """
    if not stored and all(offer.newest is None for offer in offers.values()):
        return None
    common = set.intersection(
        *(
            {*offer.usable, *(s for s in stored if offer.newest is None or s <= offer.newest)}
            for offer in offers.values()
        )
    )
    if not common:
        have = "; ".join(
            f"host of rank {rank}: {', '.join(map(str, sorted(offer.usable))) or 'none'}"
            for rank, offer in offers.items()
        )
        raise Agreed(
            f"no checkpoint has the parts of all ranks: steps by host: {have}. Start as many ranks "
            "on the same hosts as before, put the missing parts back, or set output.upload, from "
            "where hosts fetch what they lack"
        )
    return max(common)


def _offer(checkpoints: Checkpoints, host: Host) -> Offer:
    latest = checkpoints.latest()
    if latest is None:
        return Offer(None, frozenset())
    newest = int(latest.name[5:])
    usable = {newest} if _serves(read_state(latest), host) else set()
    if len(host.ranks) < host.world_size:  # other hosts may be behind
        for step in checkpoints.steps():
            try:
                if step < newest and _serves(read_state(checkpoints.path(step)), host):
                    usable.add(step)
            except InputError:
                continue  # it only matters that the newest can be read
    return Offer(newest, frozenset(usable))


def _serves(state: State, host: Host) -> bool:
    """Whether a checkpoint holds what this host's ranks need: at another world size, all parts."""
    if state.world_size == host.world_size:
        return set(host.ranks) <= set(state.parts)
    return len(state.parts) == state.world_size


def _take(
    step: int, offer: Offer, checkpoints: Checkpoints, remote: RemoteCheckpoints | None
) -> None:
    """Let a step be this host's newest, fetched if need be (on the rank that leads)."""
    if step not in offer.usable:
        assert remote is not None
        print(f"fetching step {step} from {remote.url}", file=sys.stderr, flush=True)
        remote.fetch(step, checkpoints)
    elif step != offer.newest:
        print(
            f"{checkpoints.directory}: goes back from step {offer.newest} to {step}, the newest "
            "that all hosts have",
            file=sys.stderr,
            flush=True,
        )
        checkpoints.set_back(step)


def verify(
    path: Path,
    state: State,
    checkpoints: Checkpoints,
    host: Host,
    remote: RemoteCheckpoints | None = None,
) -> None:
    """Compare every file with its digest, and read what pickles refer to; each rank its share.

    Raises:
        Agreed: damage, with the way back to an older checkpoint.
    """
    names = host.share(sorted(state.files, key=lambda name: -state.files[name].size))
    problem = find_damage(path, state.files, names)
    if problem is None:
        try:
            for name in names:
                if name.endswith(".pt"):
                    check_pickle(path / name)
        except InputError as error:
            problem = str(error)
    said = exchange(problem)
    if host.leads and (problem := next((said[rank] for rank in host.ranks if said[rank]), None)):
        problem = f"{problem}\n{checkpoints.way_back(path)}"
        if remote is not None:
            problem += f"; or remove {checkpoints.directory} to fetch from {remote.url}"
    refuse(problem if host.leads else None)
