"""A board of made-up entries and its pages."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from made_run import HOSTILE, make_result, make_run

from unlearnbench import methods
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.bundles.address import BundleRef
from unlearnbench.methods import locate
from unlearnbench.records import MethodRecord, Result
from unlearnbench.scoring.curves import SCHEMA as CURVES
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


def board_of(folder: Path, tiny: Split) -> Path:
    """Six entries: one with curves and a bundle, one that converts little, a hostile one, and so on."""
    enter(folder, tiny, "better-1x", 40, (0.4, 0.8))
    better = folder / "better-1x" / "1"
    rows = [
        {"seed": seed, "step": step, "group": group, "rollouts": 40, "correct": 10 + step}
        for seed in (1, 2, 3)
        for step in range(20)
        for group in ("easy", "unlearnable")
    ]
    tables.write_parquet(better / "curves.parquet", pa.Table.from_pylist(rows, schema=pa.schema(list(CURVES.items()))))
    told = json.loads((better / "entry.json").read_text()) | {"bundle": "cd" * 32}
    files.write_json(better / "entry.json", told)
    ref = BundleRef(file="mine.zip", bytes=5_587_117, sha256="ab" * 32, address="https://example.org/mine.zip")
    files.write_json(better / "bundle.json", ref)
    enter(folder, tiny, "nothing-1x", 1, (-0.03, 0.05))
    enter(folder, tiny, "hostile-1x", 3, (-0.02, 0.09), name=HOSTILE[:100], url="javascript:alert(1)")
    enter(folder, tiny, "told-1x", 30, (0.3, 0.7), tier="self-reported")
    enter(folder, tiny, "gone-1x", 20, (0.1, 0.6), withdrawn=f"a leak {HOSTILE}")
    enter(folder, tiny, "silent-4x", 2, (-0.1, 0.2), name="grpo", tried=None)
    own = folder / "silent-4x" / "1"
    shutil.copy(Path(methods.__path__[0]) / "grpo.py", own.parent / "method.py")
    (own / "fates.parquet").unlink()
    stated = tables.read_json_record(own / "result.json", Result)
    method = MethodRecord(name="grpo", source_hash=locate("grpo").hash, track="verifier")
    budget = stated.budget.model_copy(update={"multiple": 4.0})
    changes = {"method": method, "budget": budget, "seeds": (7, 8, 9)}
    files.write_json(own / "result.json", stated.model_copy(update=changes))
    counts = tables.read_counts(own / "counts.parquet")
    later = pc.cast(pc.add(pc.cast(counts["run"], "int64"), 6), "string")
    tables.write_parquet(own / "counts.parquet", counts.set_column(counts.schema.get_field_index("run"), "run", later))
    return folder


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
