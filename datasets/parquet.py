"""Ratings read from a Parquet file of any size, and the row of the first mistake in it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import layout, times
from datasets.layout import LARGEST
from datasets.ratings import IdColumn, Ratings, gather

ROWS = 2**20  # rows that are read at a time
WHOLE_FLOATS = 2.0**53  # below this, a float has all digits of a whole number


def read(path: Path, columns: str | None, with_times: bool) -> Ratings:
    """Read all ratings of a Parquet file, whose columns have names; raise as ``reading.read``."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} is a Parquet file, and reading it needs pyarrow: pip install pyarrow") from None
    with path.open("rb") as opened:
        try:
            return _read_batches(parquet.ParquetFile(opened), path, columns, with_times)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged or not a Parquet file: {str(error).splitlines()[0]}") from None


def _read_batches(file: Any, path: Path, columns: str | None, with_times: bool) -> Ratings:
    """Read a ``pyarrow.parquet.ParquetFile`` batch by batch."""
    schema = file.schema_arrow
    header = [str(name) for name in schema.names]
    places = layout.usual(header, str(path)) if columns is None else layout.chosen(columns, header, str(path))[0]
    time = places[3] if len(places) > 3 else layout.time_place(header, places)
    names = [header[place] for place in places[:3]]
    own = names if time is None else [*names, header[time]]
    users, items = (_id_column(schema.field(name), path) for name in names[:2])
    parts: list[NDArray[np.float32]] = []
    when: list[NDArray[np.float64]] = []
    row = 1
    for batch in file.iter_batches(batch_size=ROWS, columns=own if with_times else names):
        arrays = [_plain(batch.column(batch.schema.get_field_index(name))) for name in names]
        for array, kind, name in zip(arrays, layout.KINDS, names, strict=True):
            gaps = _missing(array)
            if gaps.any():
                place = f"{path}, row {row + int(gaps.argmax())}, column {name}"
                raise ValueError(f"{place}: the {kind} is missing: remove the row")
        for ids, array, name in zip((users, items), arrays, names, strict=False):
            ids.add(_ids_of(array, ids.strings, path, name, row))
        parts.append(_ratings_of(arrays[2], path, names[2], row))
        if with_times and time is not None:
            when.append(_times_of(_plain(batch.column(batch.schema.get_field_index(own[3]))), path, own[3], row))
        row += len(arrays[2])
    if row == 1:
        raise ValueError(f"{path} is empty: expected a row for each rating, with user, item and rating")
    return gather(users, items, parts, tuple(own), when)


def _plain(array: Any) -> Any:
    """Return an array without its dictionary, if it has one."""
    import pyarrow as pa

    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _missing(array: Any) -> NDArray[np.bool_]:
    """Return for each value whether it is null, not a number, or a blank string."""
    import pyarrow as pa
    from pyarrow import compute

    gaps: NDArray[np.bool_] = compute.is_null(array, nan_is_null=True).to_numpy(zero_copy_only=False)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        blank = compute.equal(compute.utf8_trim_whitespace(array), "").fill_null(True)
        gaps = gaps | blank.to_numpy(zero_copy_only=False)
    return gaps


def _id_column(field: Any, path: Path) -> IdColumn:
    """Return an empty column for IDs of the field's type; raise ValueError where IDs cannot have that type."""
    import pyarrow as pa

    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if kind == pa.uint64() or pa.types.is_decimal(kind):  # whole numbers that int64 may not hold
        return IdColumn(strings=True, untyped=True)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return IdColumn()
    if any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, _is_bytes)):
        return IdColumn(strings=True)
    raise ValueError(f"{path}, column {field.name}: is of {kind}: expected IDs that are whole numbers or strings")


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _ids_of(array: Any, strings: bool, path: Path, name: str, row: int) -> Any:
    """Return the IDs of a batch whose first row has the number ``row``: int64, or strings.

    Raises:
        ValueError: an ID is a number with a fraction, or bytes that are not UTF-8.
    """
    import pyarrow as pa

    if strings:
        try:
            return array.cast(pa.large_string()).to_pandas().to_numpy(dtype=object)
        except pa.ArrowInvalid:
            raise ValueError(f"{path}, column {name}: has bytes that are not UTF-8: expected strings") from None
    values = array.to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        wrong = ~(np.abs(values) < WHOLE_FLOATS) | (values != np.floor(values))
        if wrong.any():
            place = int(wrong.argmax())
            problem = f"'{values[place]}' is not an ID: expected whole numbers or strings"
            raise ValueError(f"{path}, row {row + place}, column {name}: {problem}")
    return values.astype(np.int64)


def _ratings_of(array: Any, path: Path, name: str, row: int) -> NDArray[np.float32]:
    """Return the ratings of a batch whose first row has the number ``row``."""
    import pyarrow as pa

    types = pa.types
    checks = (types.is_integer, types.is_floating, types.is_decimal, types.is_string, types.is_large_string)
    try:
        if not any(check(array.type) for check in checks):
            raise TypeError
        ratings = array.to_pandas().to_numpy(dtype=object if types.is_decimal(array.type) else None).astype(np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{path}, column {name}: is of {array.type}: expected numbers") from None
    if (wrong := ~(np.abs(ratings) <= LARGEST)).any():
        place = int(wrong.argmax())
        raise ValueError(f"{path}, row {row + place}, column {name}: '{ratings[place]}' is not a rating")
    found: NDArray[np.float32] = ratings.astype(np.float32)
    return found


def _times_of(array: Any, path: Path, name: str, row: int) -> NDArray[np.float64]:
    """Return the times of a batch whose first row has the number ``row``, NaN for a missing one.

    Raises:
        ValueError: one is not a time.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(array.type) or types.is_date64(array.type):
        array = array.cast(pa.int64())
    elif types.is_date32(array.type):
        array = array.cast(pa.int32())
    if types.is_integer(array.type) or types.is_floating(array.type):
        found: NDArray[np.float64] = array.to_pandas().to_numpy(dtype=np.float64, na_value=np.nan)
        return found
    if not (types.is_string(array.type) or types.is_large_string(array.type)):
        raise ValueError(f"{path}, column {name}: is of {array.type}: {times.EXPECTED}")
    cells = [None if cell is None or layout.is_missing(cell) else cell.strip() for cell in array.to_pylist()]
    known = next((cell for cell in cells if cell is not None), "0")
    found, wrong = times.numbers(cells, dated=not layout.is_number(known))
    if wrong is not None:
        raise ValueError(f"{path}, row {row + wrong}, column {name}: '{cells[wrong]}' is not a time: {times.EXPECTED}")
    return found
