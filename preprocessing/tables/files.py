"""Arrays of one dimension as Arrow files of one column: mapped, not loaded, when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from preprocessing.storage import Shard, open_shard, write_shard


def write_array(directory: Path, shard: str, name: str, values: NDArray[Any]) -> Shard:
    """Write an array ``[values]``, whole or not at all.

    Args:
        directory: of a stage.
        shard: name of the file.
        name: of the array, and of the column.
    """
    field = pa.field(name, pa.from_numpy_dtype(values.dtype), nullable=False)
    schema = pa.schema([field])
    with write_shard(directory / shard, schema, rows_per_batch=max(1, len(values))) as writer:
        writer.write(pa.RecordBatch.from_arrays([pa.array(values)], schema=schema))
        return writer.finish(shard, {})


def read_array(path: Path) -> NDArray[Any]:
    """An array as it was written, read-only.

    Raises:
        InputError: missing or damaged file.
    """
    reader = open_shard(path)
    if reader.num_record_batches == 0:
        return np.zeros(0, dtype=reader.schema.types[0].to_pandas_dtype())
    values: NDArray[Any] = reader.get_batch(0).column(0).to_numpy()
    return values
