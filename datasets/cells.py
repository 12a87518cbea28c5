"""The cells of a table of ratings: numbers, missing values, ratings and counts."""

import math
import unicodedata

import numpy as np

from datasets import times

LARGEST = float(np.finfo(np.float32).max)
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "<na>", "null", "none", "\\n"})


def is_number(cell: str) -> bool:
    """Return whether a cell holds a finite number as a computer writes it."""
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty, or holds one of the usual words for a missing value."""
    return cell.strip().lower() in MISSING


def wrong_rating(cell: str, counts: bool) -> str | None:
    """Return the reason why a cell is neither a rating nor missing, or why it is not a count."""
    shown = repr(cell[:40])
    if is_missing(cell):
        return "the count is missing: fill it in or remove the line" if counts else None
    if not is_number(cell) or abs(float(cell)) > LARGEST:
        kind = "count" if counts else "rating"
        if times.is_date(cell):
            return f"{shown} is a time and not a {kind}: name it as the time, option columns USER,ITEM,,TIME"
        point = " with a decimal point" if "," in cell and is_number(cell.replace(",", ".")) else ""
        size = f" of at most {LARGEST:.2g}" if is_number(cell) else ""
        return f"{shown} is not a {kind}: expected a number{size}{point}{_odd_character(cell)}"
    if counts and float(cell) < 0:
        return f"{shown} is a negative count: expected at least 0"
    return None


def _odd_character(cell: str) -> str:
    """Name the first character of a cell that is not ASCII, because it may look like another one or like none."""
    for place, character in enumerate(cell, 1):
        if not character.isascii():
            name = unicodedata.name(character, "no name").lower()
            return f"; character {place} is U+{ord(character):04X}, {name}"
    return ""
