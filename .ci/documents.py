"""Run every block of the documents that can be run, the slow ones too, and print how long each took.

    python .ci/documents.py [DOCUMENT ...]

tests/documents.py says how a block is marked. Exit status 1 if any fails, or if nobody says what to do with it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from documents import blocks, documents, run_blocks  # noqa: E402


def main() -> int:
    """Run them; returns the exit status."""
    chosen = [Path(name).resolve() for name in sys.argv[1:]] or documents()
    failed = 0
    for document in chosen:
        found = blocks(document)
        for wrong in filter(None, (block.wrong for block in found)):
            print(wrong, file=sys.stderr)
            failed += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                for where, seconds in run_blocks(found, Path(folder) / "checkout"):
                    print(f"{where}: {seconds:.1f} s", flush=True)
            except RuntimeError as error:
                print(error, file=sys.stderr)
                failed += 1
        for block in found:
            if block.mark == "not run":
                print(f"{block.where}: not run: {block.reason}")
    print(f"{len(chosen)} documents, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
