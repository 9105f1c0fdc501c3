"""A board of made-up entries and its pages."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

from made_run import make_result, make_run

from unlearnbench.io import files
from unlearnbench.records import MethodRecord
from unlearnbench.splits import Split


def enter(entries: Path, split: Split, id_: str, converts: int, interval: tuple[float, float], **changes: str) -> None:
    """Write the folder of an entry whose run converted so many items."""
    folder = entries / id_ / str(changes.get("edition", "1"))
    make_run(folder, split, converts=converts)
    for seed in folder.glob("[0-9]"):
        shutil.rmtree(seed)  # an entry keeps counts and fates alone
    shown = changes.get("name", id_)
    method = MethodRecord(name=shown, source_hash="ab" * 32, track="verifier", settings={"bonus": 0.2, "kl": 1e-3})
    result = make_result(split, converts, gain=sum(interval) / 2, interval=interval, method=method)
    files.write_json(folder / "result.json", result)
    files.write_text(folder.parent / "method.py", "x = '</pre><script>alert(1)</script>'\n")
    entry = {"id": id_, "name": shown, "tier": "re-trained", "edition": "1", "tried": 1, "source": "method.py"}
    files.write_text(folder / "entry.json", json.dumps(entry | changes))


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


class Page(HTMLParser):
    """Tags with their attributes, ids, and the text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def row(self, name: str) -> str:
        """The board's row of an entry."""
        return next(row for row in re.findall(r"<tr data-key.*?</tr>", self.source, re.DOTALL) if f"/{name}/" in row)
