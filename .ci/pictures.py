"""The pictures of README and the documents that are shots of pages, taken from the pages themselves.

    python .ci/pictures.py [--run DIR]

    docs/report.png          the first screen of a run's report; only with --run, the folder of a finished run
    docs/board.png           the board: its answer, its picture and its first rows
    docs/guide/compare.png   the first screen of the comparison in docs/guide/compare.md

Needs Chromium. Those of docs/results are written by `python -m experiments.page`.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(ROOT / "tests"))

from chromium import Browser, binary  # noqa: E402

REPORT, BOARD, COMPARISON = (1280, 560), (1280, 1110), (1100, 490)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", type=Path, help="Folder of a finished run of `eval`.")
    given = options.parse_args()
    if binary() is None:
        print(
            ".ci/pictures.py needs Chromium; install it (Debian and Ubuntu: apt-get install chromium)", file=sys.stderr
        )
        return 1
    with tempfile.TemporaryDirectory() as name, Browser() as browser:
        folder = Path(name)
        if given.run is not None:
            browser.open(given.run / "report.html", size=REPORT)
            browser.shoot(DOCS / "report.png", REPORT[1])
        _call("leaderboard", "build", "--out", str(folder / "site"))
        browser.open(folder / "site" / "index.html", size=BOARD)
        browser.shoot(DOCS / "board.png", BOARD[1])
        _call(*_comparison(), "--out", str(folder / "page"))
        browser.open(folder / "page" / "comparison.html", size=COMPARISON)
        browser.shoot(DOCS / "guide" / "compare.png", COMPARISON[1])
    return 0


def _comparison() -> list[str]:
    """The command of compare.md's example, without its last option."""
    text = (DOCS / "guide" / "compare.md").read_text(encoding="utf-8")
    found = re.search(r"^unlearnbench (compare leaderboard/entries/.*?) --out page$", text, re.MULTILINE | re.DOTALL)
    assert found is not None, "docs/guide/compare.md has no comparison of entries"
    return shlex.split(found[1].replace("\\\n", " "))


def _call(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "unlearnbench", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main())
