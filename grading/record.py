"""The files of a grading, which are written whole after each submission: table, JSON and feedback."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from cli.files import check_folder, write_whole
from cli.text import one_line
from grading import feedback
from grading.checks import Check
from grading.results import Grade, gradescope
from grading.table import as_csv, from_csv, header, label, row


class Record:
    """The rows of a table by the submissions' labels, and the files of the options.

    Args:
        checks: the checks, which give the table its columns.
        table: the CSV file of the table, or None.
        results: the JSON file of the class, or None.
        pages: the folder of the feedback, or None.
        earlier: a table whose rows are kept, or None. The contents of an earlier JSON file are kept with it.

    Raises:
        ValueError: an earlier file has another format.
        OSError: a file cannot be read, or the folder of the feedback cannot be written.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        table: Path | None,
        results: Path | None,
        pages: Path | None,
        earlier: Path | None = None,
    ) -> None:
        self._header = header(checks)
        self._table = table
        self._results = results
        self._pages = pages
        self.rows = from_csv(earlier, self._header) if earlier else {}
        self._json = _from_json(results) if results and results.exists() and earlier else {}
        self._page_names: dict[str, str] = {}
        self._confined = ""
        if pages:
            check_folder(pages)

    def lacks(self, name: str) -> bool:
        """Tell whether the table has no row for a submission, or one of a submission that could not be graded."""
        found = self.rows.get(label(name))
        return found is None or bool(found[-1])

    def how_to_go_on(self) -> str:
        """Say where the results of a stopped grading are."""
        if not self._table:
            return "and their results are lost: --csv FILE keeps them"
        return f"in {one_line(str(self._table))}: --rerun-failed with this file grades the others"

    def begin(self, names: Collection[str], confined: str = "") -> None:
        """Write table and JSON before the first of these submissions, so that a killed grading can be resumed."""
        self._confined = confined
        self._page_names = feedback.file_names([*self.rows, *map(label, names)])
        if self._results:
            self._write_json(self._results)
        self._write_table()

    def add(self, graded: Grade) -> None:
        """Write a submission's pages, its JSON and its row.

        The row comes last: a submission whose row was not written is graded again.
        """
        name = label(graded.name)
        if self._pages:
            page = self._pages / self._page_names[name]
            write_whole(feedback.markdown(graded).encode(), page.with_name(f"{page.name}.md"))
            write_whole(feedback.web_page(graded).encode(), page.with_name(f"{page.name}.html"))
        if self._results:
            seconds = sum(result.seconds for result in graded.results)
            self._json[name] = json.dumps(gradescope(graded, seconds, self._confined))
            self._write_json(self._results)
        self.rows[name] = row(graded)
        self._write_table()

    def _write_json(self, path: Path) -> None:
        entries = ",\n".join(f"{json.dumps(name)}: {result}" for name, result in self._json.items())
        write_whole(f'{{"submissions": {{\n{entries}\n}}}}\n'.encode(), path)

    def _write_table(self) -> None:
        if self._table:
            write_whole(as_csv([self._header, *self.rows.values()]), self._table)


def _from_json(path: Path) -> dict[str, str]:
    """Read the results of an earlier grading as strings of JSON, by the submissions' labels."""
    try:
        found: Any = json.loads(path.read_bytes())["submissions"]
        return {each: json.dumps(result) for each, result in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} has no results of a class: expected a file that --json wrote") from None
