"""The treatments of a model's tensors as a table, shown when a training starts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from rich import box
from rich.table import Table

from pipeline.optim.groups import ParameterRow

NAMES_SHOWN = 2


def treatment_table(rows: Iterable[ParameterRow], weight_decay: float) -> Table:
    """A line for each treatment, those that decay first.

        tensors    parameters   decay   trust ratio   names
             78   109,951,488    0.01           yes   embeddings.word.weight,
                                                      embeddings.position.weight, ... (+10)
            128       154,940       0            no   embeddings.norm.weight,
                                                      embeddings.norm.bias, ... (+16)

    Args:
        rows: every trained tensor of the model.
        weight_decay: of the tensors that decay.
    """
    by_treatment: dict[tuple[bool, bool], list[ParameterRow]] = {}
    for row in rows:
        by_treatment.setdefault((row.decays, row.adapted), []).append(row)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("tensors", "parameters", "decay", "trust ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("names", overflow="fold")
    for (decays, adapted), members in sorted(by_treatment.items(), reverse=True):
        table.add_row(
            f"{len(members)}",
            f"{sum(math.prod(row.shape) for row in members):,}",
            f"{weight_decay:g}" if decays else "0",
            "yes" if adapted else "no",
            _abbreviated(row.name for row in members),
        )
    return table


def _abbreviated(names: Iterable[str]) -> str:
    """Names that differ in numbers alone once, and no more than a few."""
    forms = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in names))
    more = len(forms) - NAMES_SHOWN
    return ", ".join(forms[:NAMES_SHOWN]) + (f", ... (+{more})" if more > 0 else "")
