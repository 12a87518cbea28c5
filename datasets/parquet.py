"""Ratings read from a Parquet file of any size, and the row of the first mistake in it."""

import functools
import operator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets import columns, times
from datasets.cells import LARGEST, is_missing, is_number, wrong_rating
from datasets.columns import FileOptions
from datasets.gathering import Gathered
from datasets.ids import IdColumn
from datasets.layout import Layout
from datasets.ratings import Ratings
from datasets.textfile import InputFile
from datasets.times import TimeColumn

ROWS = 2**20  # rows that are read at a time
WHOLE_FLOATS = 2.0**53  # below this, a float has all digits of a whole number


def read(file: InputFile, options: FileOptions, with_times: bool) -> Ratings:
    """Read all interactions of a Parquet file, whose columns have names; raise as ``reading.read``."""
    path = file.path
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ValueError(f"{path} is a Parquet file, and reading it needs pyarrow: pip install pyarrow") from None
    with path.open("rb") as opened:
        try:
            return _read_batches(parquet.ParquetFile(opened), path, options, with_times)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged or not a Parquet file: {str(error).splitlines()[0]}") from None


def _read_batches(file: Any, path: Path, options: FileOptions, with_times: bool) -> Ratings:
    """Read a ``pyarrow.parquet.ParquetFile`` batch by batch."""
    schema = file.schema_arrow
    form = _layout([str(name) for name in schema.names], path, options, with_times)
    places = form.places
    users, items = (_id_column(schema.field(place), path) for place in places[:2])
    gathered = Gathered(form, users, items, options.unrated)
    row = 1
    for batch in file.iter_batches(batch_size=ROWS, columns=[form.names[place] for place in form.needed]):
        arrays = {place: _plain(batch.column(batch.schema.get_field_index(form.names[place]))) for place in form.needed}
        ids = [
            _ids_of(arrays[place], column.strings, path, form.names[place], kind, row)
            for place, column, kind in zip(places[:2], (users, items), ("user", "item"), strict=True)
        ]
        gathered.add(
            ids[0],
            ids[1],
            None if places.rating is None else _ratings_of(arrays[places.rating], form, path, row),
            None if form.time is None else _times_of(arrays[form.time.place], form, path, row),
            None if places.part is None else _strings_of(arrays[places.part]),
            functools.partial(operator.add, row),
        )
        row += len(ids[0])
    if row == 1:
        raise ValueError(f"{path} is empty: expected a row for each rating, with user, item and rating")
    return gathered.finish(path, unit="row")


def _layout(header: list[str], path: Path, options: FileOptions, with_times: bool) -> Layout:
    where = str(path)
    if options.columns is None:
        places = columns.usual(header, options.counts, where)
    else:
        places, _ = columns.chosen(options, header, where)
    places = places.find_others(header)
    time = None if places.time is None or not with_times else TimeColumn(places.time, header[places.time], dated=False)
    chosen = options.columns is not None
    return Layout("", False, len(header), places, header, True, time, options.counts, chosen)


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


def _ids_of(array: Any, strings: bool, path: Path, name: str, kind: str, row: int) -> Any:
    """Return the IDs of a batch whose first row has the number ``row``: int64, or strings.

    Raises:
        ValueError: an ID is missing, a number with a fraction, or bytes that are not UTF-8.
    """
    import pyarrow as pa

    gaps = _missing(array)
    if gaps.any():
        place = row + int(gaps.argmax())
        raise ValueError(f"{path}, row {place}, column {name}: the {kind} is missing: remove the row")
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


def _ratings_of(array: Any, form: Layout, path: Path, row: int) -> NDArray[np.float64]:
    """Return the ratings of a batch whose first row has the number ``row``, NaN for a missing one."""
    import pyarrow as pa

    types = pa.types
    name = form.columns[2].removeprefix("count ") if form.counts else form.columns[2]
    if types.is_integer(array.type) or types.is_floating(array.type):
        ratings: NDArray[np.float64] = array.to_pandas().to_numpy(dtype=np.float64, na_value=np.nan)
        if not (np.abs(ratings) > LARGEST).any() and not (form.counts and not (ratings >= 0).all()):
            return ratings
    elif not any(check(array.type) for check in (types.is_decimal, types.is_string, types.is_large_string)):
        raise ValueError(f"{path}, column {name}: is of {array.type}: expected numbers")
    cells = ["" if cell is None else str(cell).strip() for cell in array.to_pylist()]
    for place, cell in enumerate(cells, row):
        if problem := wrong_rating(cell, form.counts):
            raise ValueError(f"{path}, row {place}, column {name}: {problem}")
    return np.array([np.nan if is_missing(cell) else float(cell) for cell in cells])


def _strings_of(array: Any) -> list[str | None]:
    return [None if cell is None else str(cell) for cell in array.to_pylist()]


def _times_of(array: Any, form: Layout, path: Path, row: int) -> NDArray[np.float64]:
    """Return the times of a batch whose first row has the number ``row``, NaN for a missing one.

    Raises:
        WrongTime: one is not a time.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_timestamp(array.type) or types.is_date64(array.type):
        array = array.cast(pa.int64())
    elif types.is_date32(array.type):
        array = array.cast(pa.int32())
    if types.is_integer(array.type) or types.is_floating(array.type):
        found: NDArray[np.float64] = array.to_pandas().to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isinf(found).any():
            return found
    cells = [None if cell is None or is_missing(str(cell)) else str(cell).strip() for cell in array.to_pylist()]
    known = next((cell for cell in cells if cell is not None), "0")
    found, wrong = times.numbers(cells, dated=not is_number(known))
    if wrong is not None:
        raise form.wrong_time(path, row + wrong, str(cells[wrong]), "row")
    return found
