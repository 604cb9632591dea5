"""Executes docs/tutorial.ipynb and stores its outputs in it.

Run it after a change of the notebook or of what it shows: python scripts/run_tutorial.py
"""

import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def main() -> None:
    """Writes the notebook back with new outputs."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    started = time.perf_counter()
    # Runs and exports stay out of the checkout. Times of cells would differ in each version.
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=1800,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        ).execute()
    notebook.metadata = {
        name: value for name, value in notebook.metadata.items() if name == "kernelspec"
    }
    nbformat.write(notebook, NOTEBOOK)
    size = NOTEBOOK.stat().st_size
    print(f"{NOTEBOOK}: {time.perf_counter() - started:.0f} s, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
