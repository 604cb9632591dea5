"""The tutorial: it runs as it stands, and its outputs are stored in it."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.slow
def test_the_tutorial_runs_without_an_error(notebook, tiny, tmp_path, monkeypatch):
    (parameters,) = [
        cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])
    ]
    # Every cell, on as few images as will do.
    parameters.source += f"\n{tiny.code}\nDATASET, EPOCHS, BATCH_SIZE = 'tiny', 1, 80"
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny.data_dir))
    waits = {"timeout": 600, "startup_timeout": 600}
    NotebookClient(notebook, **waits, resources={"metadata": {"path": tmp_path}}).execute()
    assert (tmp_path / "tutorial" / "models" / "1" / "saved_model.pb").is_file()


def test_the_outputs_stored_are_those_of_one_run_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5


def test_the_tutorial_with_its_outputs_is_small():
    assert NOTEBOOK.stat().st_size < 600_000
