"""Run docs/guide/first-hour.ipynb from its first cell to its last, away from the checkout.

    python .ci/notebook.py            run it; exit status 1 if a cell fails
    python .ci/notebook.py --write    and keep what the cells show

Needs the extra `notebook`: pip install -c constraints.txt -e ".[notebook]"
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs/guide/first-hour.ipynb"
LIMIT = 300  # seconds of a cell
MOST_PLAIN = 300  # characters kept of what a cell shows as plain text, where it shows HTML too


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true")
    write = parser.parse_args().write
    book = nbformat.read(NOTEBOOK, as_version=4)
    os.environ |= {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore:IProgress not found"}  # there are no widgets here
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(book, timeout=LIMIT, kernel_name="python3", resources={"metadata": {"path": folder}})
        try:
            client.execute()
        except CellExecutionError as error:
            print(error, file=sys.stderr)
            return 1
    cells = sum(cell.cell_type == "code" for cell in book.cells)
    print(f"{NOTEBOOK.name}: {cells} cells, {time.monotonic() - began:.1f} s")
    if write:
        for cell in book.cells:
            cell.metadata.pop("execution", None)
            for data in (output.data for output in cell.get("outputs", ()) if "data" in output):
                if "text/html" in data:  # the words beside it are a record in full, with this machine's folders
                    data["text/html"] = re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "", data["text/html"])
                    data["text/plain"] = data["text/plain"].replace(f"{ROOT}/", "")[:MOST_PLAIN]
        nbformat.write(book, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
