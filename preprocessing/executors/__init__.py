"""Where tasks run: local processes, a Ray cluster, or slices of a list that a scheduler deals."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from configs.schema import config
from preprocessing.executors.base import Executor
from preprocessing.executors.local import LocalExecutor
from preprocessing.executors.ray_cluster import RayExecutor


@config
class LocalConfig:
    """Processes of this machine."""

    kind: Literal["local"] = "local"


@config
class RayConfig:
    """Tasks of a Ray cluster.

    Attributes:
        address: of an existing cluster (``auto``, ``ray://host:10001``); null starts a local one.
    """

    kind: Literal["ray"]
    address: str | None = None


ExecutorConfig = Annotated[LocalConfig | RayConfig, pydantic.Field(discriminator="kind")]


def open_executor(chosen: LocalConfig | RayConfig, *, workers: int, retries: int) -> Executor:
    """The executor that a configuration means; call ``close`` at the end.

    Args:
        chosen: what ``corpus.executor`` says.
        workers: tasks at a time.
        retries: further attempts at a task whose worker died or whose network failed.
    """
    match chosen:
        case LocalConfig():
            return LocalExecutor(workers, retries)
        case RayConfig():
            return RayExecutor(chosen.address, workers, retries)
