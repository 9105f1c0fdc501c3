"""Every page of the leaderboard's site in a real browser: wide and on a phone, light and dark.

    python .ci/browser.py [--entries DIR] [--out DIR] [--pictures DIR]

Builds the site, opens each page in Chromium four times and prints what is wrong (console, requests, dead links,
overflow, names of controls, faint text); then runs axe-core on every kind of page, and sorts and filters the board.
Exit status 1 if anything is wrong. axe-core comes from npm; without npm that part is left out, which is printed.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import DESK, PHONE, Browser, binary, dead_links, findings, violations  # noqa: E402

from unlearnbench.leaderboard.site.build import build  # noqa: E402

AXE = "axe-core@4.14.1"
HEAVIEST = 15_000_000
"""Bytes of all pages together."""
_ROWS = "[...document.querySelectorAll('#entries tbody.rows tr')]"
_SEEN = f"{_ROWS}.filter((row) => row.checkVisibility())"


def check_board(browser: Browser, page: Path) -> list[str]:
    """What is wrong with sorting and filtering: every column both ways, every value of every filter."""
    browser.open(page)
    if not browser.run("document.getElementById('entries') !== null"):
        return []
    found = []
    _choose(browser, "track", "all")  # the tab with the most columns
    around = "document.getElementById('entries').closest('.scroll')"
    wide, room = browser.run(f"[{around}.scrollWidth, {around}.clientWidth]")
    if wide > room:
        found.append(f"tab all: the table takes {wide} of {room} px")
    browser.run("document.querySelector('button[type=reset]').click()")
    total = browser.run(f"{_ROWS}.length")
    for column in range(browser.run("document.querySelectorAll('#entries thead th').length")):
        head = f"document.querySelectorAll('#entries thead th')[{column}]"
        for _ in range(2):
            browser.run(f"{head}.querySelector('button').click()")
            way, kind = browser.run(f"[{head}.ariaSort, {head}.dataset.sort]")
            values = browser.run(f"{_ROWS}.map((row) => row.cells[{column}].dataset.value)")
            known = [value for value in values if value != ""]
            keys = [float(value) for value in known] if kind == "number" else None
            if values[: len(known)] != known:
                found.append(f"column {column}, {way}: what is undefined does not come last")
            if keys is not None and keys != sorted(keys, reverse=way == "descending"):
                found.append(f"column {column}, {way}: not in order")
            if len(values) != total:
                found.append(f"column {column}, {way}: {len(values)} of {total} rows are left")
    for name in ("split", "track", "budget", "tier"):
        field = f"document.getElementById('filters').elements['{name}']"
        shown = 0
        values = browser.run(f"[...({field}.options || {field})].map((option) => option.value)")
        for value in values:
            _choose(browser, name, value)
            seen = browser.run(f"{_SEEN}.map((row) => row.dataset.{name})")
            if value in ("", "all"):
                continue
            if set(seen) != {value}:
                found.append(f"filter {name} = {value}: shows {sorted(set(seen))}")
            shown += len(seen)
        if shown != total:
            found.append(f"filter {name}: its values show {shown} of {total} entries in all")
        _choose(browser, name, "all" if name == "track" else "")
    return found


def _choose(browser: Browser, name: str, value: str) -> None:
    """Set a select or the tabs of that name, as a reader does."""
    field = f"document.getElementById('filters').elements['{name}']"
    event = "new Event('input', { bubbles: true })"
    browser.run(f"{field}.value = {value!r}; document.getElementById('filters').dispatchEvent({event})")


def axe_source() -> str | None:
    """axe-core as npm has it; None where there is no npm. Raises CalledProcessError where npm cannot install it."""
    if (npm := shutil.which("npm")) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [npm, "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, AXE],
            check=True,
        )
        return (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def check_access(browser: Browser, site: Path, axe: str) -> list[str]:
    """What axe-core finds on every kind of page, wide and narrow, light and dark: each split and document, the first
    and the last entry, and the board as it opens, whole with two rows compared, and with each of its pictures."""
    entries = sorted(site.glob("entry/*/index.html"))
    kinds = [(page, "") for page in [*site.glob("*.html"), *sorted(site.glob("split/*/*.html")), *entries[:1]]]
    kinds += [(page, "") for page in entries[-1:]]
    kinds += [(page, "") for page in sorted((site / "documents").rglob("*.html"))]
    board = site / "index.html"
    browser.open(board)
    keys = browser.run(f"{_ROWS}.slice(0, 2).map((row) => encodeURIComponent(row.dataset.key)).join('+')") or ""
    kinds += [(board, f"#track=all&unfolded=yes&pair={keys}&picture={name}") for name in ("frontier", "easy", "flops")]
    found = []
    for page, fragment in kinds:
        for size in (DESK, PHONE):
            for dark in (False, True):
                browser.open(page, fragment, size, dark)
                where = f"{page.relative_to(site).as_posix()}{fragment}, {size[0]} px, {'dark' if dark else 'light'}"
                found += [f"{where}: {one}" for one in violations(browser, axe)]
    print(f"axe-core: {4 * len(kinds)} views of {len({page for page, _ in kinds})} pages, {len(found)} violations")
    return found


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--entries", type=Path, default=ROOT / "leaderboard" / "entries")
    options.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    options.add_argument("--pictures", type=Path, help="Folder for a picture of each page [default: none].")
    given = options.parse_args()
    if binary() is None:
        print(
            ".ci/browser.py needs Chromium; install it (Debian and Ubuntu: apt-get install chromium)", file=sys.stderr
        )
        return 1
    began, site = time.monotonic(), build(given.entries, given.out).parent
    pages, wrong = sorted(site.rglob("*.html")), 0
    weight = sum(page.stat().st_size for page in pages)
    print(f"{len(pages)} pages, {weight / 1e6:.1f} MB, in {time.monotonic() - began:.0f} s")
    if weight > HEAVIEST:
        wrong += 1
        print(f"the pages are heavier than {HEAVIEST / 1e6:g} MB together")
    with Browser() as browser:
        for page in pages:
            name = page.relative_to(site).as_posix()
            for size in (DESK, PHONE):
                for dark in (False, True):
                    scheme = "dark" if dark else "light"
                    for told in findings(browser, page, site, size, dark):
                        wrong += 1
                        print(f"{name}, {size[0]} px, {scheme}: {told}")
                    if given.pictures:
                        browser.shoot(given.pictures / f"{name.replace('/', '_')}-{size[0]}-{scheme}.png")
        axe = axe_source()
        if axe is None:
            print("axe-core was not run: it comes from npm, which is not installed")
        access = [] if axe is None else check_access(browser, site, axe)
        for told in [*dead_links(browser, site, pages), *check_board(browser, site / "index.html"), *access]:
            wrong += 1
            print(told)
    print(f"{len(pages)} pages, {wrong} findings, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
