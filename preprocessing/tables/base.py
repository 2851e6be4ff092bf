"""What a table is: counted shard by shard, and put together once.

    train/part-00000.arrow --count--> counts --+
    train/part-00001.arrow --count--> counts --+--build--> arrays by name
    train/part-00002.arrow --count--> counts --+

Both are pure functions of the tokens and the configuration, so that any number of workers makes
the same bytes.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from numpy.typing import NDArray

from configs.schema import digest
from preprocessing.tokens import Sources, TokenStore
from preprocessing.vocabulary import Vocabulary

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays of one dimension by name."""


class Table(abc.ABC):
    """What the configuration of every table can do.

    Attributes:
        name: of the table, a word.
    """

    name: ClassVar[str]

    def files(self) -> tuple[Path, ...]:
        """Files that it is made of beside the tokens."""
        return ()

    @abc.abstractmethod
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that it comes to."""

    @abc.abstractmethod
    def expected_values(self, vocabulary: Vocabulary) -> int:
        """About how many numbers its arrays hold: a forecast."""

    @abc.abstractmethod
    def count(self, vocabulary: Vocabulary, store: TokenStore, documents: range) -> Arrays:
        """What is to be known of the documents of one shard; nothing is a good answer, too."""

    @abc.abstractmethod
    def build(self, vocabulary: Vocabulary, store: TokenStore, counts: Iterable[Arrays]) -> Arrays:
        """The arrays, of the counts of all shards in their order, each read when asked for.

        Raises:
            InputError: a file that it needs is no good.
        """


@dataclass(frozen=True)
class Wanted:
    """A table of the training tokens of some sources, or of all of them."""

    table: Table
    sources: Sources = None

    @property
    def directory_name(self) -> str:
        """Where it lies: tables of other settings or sources lie elsewhere."""
        settings = self.table if self.sources is None else [self.table, self.sources]
        return f"{self.table.name}-{digest(settings)[:8]}"
