"""Ratings from a Parquet file, where pyarrow is installed."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import coding, layout
from datasets.source import CodedRatings

ROWS = 2**20  # that are read at a time
LARGEST = float(np.finfo(np.float32).max)


def read(path: Path, columns: str | None) -> CodedRatings:
    """All ratings in a file; its columns have names.

    Raises:
        ValueError: pyarrow is not installed, or something in the file is wrong.
        OSError: it cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} is a Parquet file, and reading it needs pyarrow: pip install pyarrow") from None
    with path.open("rb") as handle:
        try:
            file: Any = parquet.ParquetFile(handle)
            header = [str(name) for name in file.schema_arrow.names]
            places = (
                layout.usual(header, str(path)) if columns is None else layout.chosen(columns, header, str(path))[0]
            )
            names = (header[places[0]], header[places[1]], header[places[2]])
            kinds = [file.schema_arrow.field(name).type for name in names]
            users, items = (coding.Column(text=not pa.types.is_integer(kind)) for kind in kinds[:2])
            parts: list[NDArray[np.float32]] = []
            row = 1
            for batch in file.iter_batches(batch_size=ROWS, columns=list(names)):
                series = {name: batch.column(batch.schema.get_field_index(name)).to_pandas() for name in names}
                for kind, name in zip(layout.NAMES, names, strict=True):
                    if (gaps := series[name].isna().to_numpy()).any():
                        at = row + int(gaps.argmax())
                        raise ValueError(f"{path}, row {at}, column {name}: the {kind} is missing: remove the row")
                for ids, name in ((users, names[0]), (items, names[1])):
                    ids.add(series[name].astype(str) if ids.text else series[name])
                try:
                    stars = series[names[2]].to_numpy().astype(np.float64)
                except (ValueError, TypeError):
                    raise ValueError(f"{path}, column {names[2]}: is of {kinds[2]}: expected numbers") from None
                if (wrong := ~(np.abs(stars) <= LARGEST)).any():
                    at = int(wrong.argmax())
                    raise ValueError(f"{path}, row {row + at}, column {names[2]}: '{stars[at]}' is no rating")
                parts.append(stars.astype(np.float32))
                row += len(stars)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged or no Parquet file: {str(error).splitlines()[0]}") from None
    if not parts or row == 1:
        raise ValueError(f"{path} is empty: expected a row a rating, with user, item and rating")
    return coding.finish(users, items, parts, names)
