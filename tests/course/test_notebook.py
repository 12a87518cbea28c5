"""homework.ipynb, executed in a student's folder."""

from pathlib import Path

import nbformat
import pytest
from classroom import fill_in, student_folder
from nbclient import NotebookClient


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of the kernel's own libraries
def test_the_notebook_grades_trains_shows_the_curves_and_hands_in(tmp_path: Path, data_dir: Path) -> None:
    folder = student_folder(tmp_path / "homework", data_dir)
    fill_in(folder, "A1", "A2", "B")
    notebook = nbformat.read(folder / "homework.ipynb", as_version=4)
    cells = {cell["id"]: cell for cell in notebook.cells}
    assert cells["settings"].source.count("EPOCHS = 200") == 1
    cells["settings"].source = cells["settings"].source.replace("EPOCHS = 200", "EPOCHS = 2")
    NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    said = {name: "".join(output.get("text", "") for output in cell.get("outputs", ())) for name, cell in cells.items()}
    assert "nothing was missing" in said["install"]
    assert "8 / 8 points" in said["grade"]
    assert said["run"].count("2 epochs (0 to 1) in") == 4, said["run"]
    assert "image/png" in cells["curves"].outputs[-1].data
    assert said["hand-in"].count("2 of 200 epochs") == 4
    assert (folder / "submission.zip").exists()
