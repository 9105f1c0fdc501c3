"""The page of a run: what it says of good, null-like, quick and foreign runs, and what hostile text cannot do."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from made_run import FEW, HOSTILE, NULL_SEEDS, SEEDS, make_result, make_run, make_split

from unlearnbench.cli.report import report as command
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget, Steps
from unlearnbench.reports import items as item_module
from unlearnbench.reports.examples import examples
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.items import Items, script_json
from unlearnbench.reports.run_files import Run
from unlearnbench.reports.run_report import PARTS, rebuild, script_hash, sections, write_report
from unlearnbench.reports.templating import source
from unlearnbench.scoring.curves import SCHEMA
from unlearnbench.splits import Split
from unlearnbench.training.ledger import ROLLOUTS

SECTIONS = ["summary", *(name for name, _ in PARTS)]


class Page(HTMLParser):
    """The tags, ids, attributes and visible text of a page, as a browser would read them without its script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.scripts: list[str] = []
        self._quiet = ""
        self._text: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n]+", " ", "".join(self._text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        identity = dict(attrs).get("id")
        self.ids += [identity] if identity else []
        self.sections += [identity] if tag == "section" and identity else []
        self.links += [dict(attrs).get("href") or ""] if tag == "a" else []
        if tag in ("script", "style"):
            self._quiet = tag

    def handle_endtag(self, tag: str) -> None:
        self._quiet = ""

    def handle_data(self, data: str) -> None:
        if self._quiet == "script":
            self.scripts.append(data)
        elif not self._quiet:
            self._text.append(data)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make_split(tmp_path_factory.mktemp("splits") / "tiny", probes=True)


@pytest.fixture(scope="module")
def positive(split: Split, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("positive")
    make_run(folder, split, converts=20)
    return folder, make_result(split, 20, gain=0.325, interval=(0.12, 0.49))


def section(html: str, name: str) -> str:
    """The source of one section of a page."""
    return html[html.index(f'<section id="{name}"') :].split("</section>")[0]


def page_of(folder: Path, split: Split, result: Result) -> tuple[str, Page]:
    html = write_report(folder, split, result).read_text(encoding="utf-8")
    return html, Page(html)


def browser_of(page: Page) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.scripts[0])
    return data


# --- what the page says ---------------------------------------------------------------------------------------


def test_the_first_screen_says_what_was_found(split: Split, positive: tuple[Path, Result]) -> None:
    html, page = page_of(positive[0], split, positive[1])
    assert page.sections == SECTIONS and len(page.ids) == len(set(page.ids))
    first = Page(section(html, "summary"))
    assert first.tags.count("h1") == 1
    said = verdict(positive[1])
    assert said.label == "Converts more than GRPO" and said.label in first.text
    assert "It converts 20 of 60 unlearnable items; GRPO re-run converts 0.5 on average." in first.text
    assert said.sentence in first.text and "and 1 caveat" in first.text
    for figure in ("+32.5 points", "95 % interval +12.0 to +49.0", "20 / 60", "0 / 12"):
        assert figure in first.text
    for chip in ("Canaries 0 / 1", "Memorised 0 / 60", "Probes 60 / 60", "Cost 99 % of limit"):
        assert chip in first.text
    assert "Trained 140 of 250 steps: budget spent" in first.text
    inner = [link for link in page.links if link.startswith("#")]
    assert {link[1:] for link in inner} <= set(page.ids)
    beside = [link for link in page.links if not link.startswith("#")]
    assert set(beside) <= {"items.csv", "1/evaluation/", "result.json"} and "items.csv" in beside


def test_a_null_like_result_is_not_sold_as_a_gain(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path, split, converts=1)
    result = make_result(split, 1, gain=0.009, interval=(-0.03, 0.05))
    html, page = page_of(tmp_path, split, result)
    assert "No gain over GRPO detected" in page.text and "excludes 0" not in section(html, "summary")
    assert re.search(r"could not have detected a gain below about [\d.]+ points", page.text)
    assert "grey: GRPO against itself" in page.text


def test_a_quick_run_shows_dashes_with_reasons_and_no_zero(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path, split, converts=3, n=FEW)
    why = "--quick: fewer steps, one seed and 8 samples"
    result = make_result(split, None, gain=None, comparable=False, why_not_comparable=why, samples=FEW)
    html, _ = page_of(tmp_path, split, result)
    first = Page(section(html, "summary")).text
    assert "Quick run: not scored" in first and "quick run: not scored" in first
    assert "\N{EN DASH} / 60" in first and "0 / 60" not in first and "Probes" not in first
    assert "--quick" in section(html, "reproduce")
    assert "no null control" not in html.casefold().replace("no null control is shown beside them: a quick run", "")
    settings = MethodRecord(name="my_algo", source_hash="ab" * 32, track="verifier", settings={"steps": 300})
    stated = result.model_copy(update={"method": settings, "steps": Steps(made=24, planned=24)})
    assert "<code>300</code> (this quick run: 24)" in section(page_of(tmp_path, split, stated)[0], "reproduce")


def test_a_checkpoint_run_needs_neither_metrics_nor_fates(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path / "full", split, converts=20)
    counts = tables.read_counts(tmp_path / "full" / "counts.parquet")
    tables.write_parquet(tmp_path / "run" / "counts.parquet", counts)
    result = make_result(
        split,
        20,
        gain=0.325,
        interval=(0.1, 0.5),
        kind="checkpoint",
        method=MethodRecord(name="checkpoint", source_hash="c", track="undeclared"),
        budget=SpentBudget(),
        cost=Cost(),
        fates=None,
        steps=None,
        twins={},
    )
    html, page = page_of(tmp_path / "run", split, result)
    assert page.sections == SECTIONS
    for name, said in (("cost", "was not metered"), ("training", "No curves"), ("fates", "No fates")):
        assert said in section(html, name) and section(html, name).count("<p") == 1
    assert "budget unknown" in page.text and "never ranked" in page.text and "Cost unknown" in page.text


def test_a_result_alone_makes_a_page(split: Split, tmp_path: Path) -> None:
    html, page = page_of(tmp_path, split, make_result(split, 20, gain=None))
    assert page.sections == SECTIONS
    assert "No gain defined" in page.text and "No picture" in section(html, "items")
    assert not (tmp_path / "items.csv").exists()


def cells_of(source: str, label: str) -> dict[str, list[str]]:
    """The rows of a table by their heading, as the texts of their cells."""
    body = source[source.index(f'aria-label="{label}"') :].split("</table>")[0]
    rows = re.findall(r'<tr[^>]*><th scope="row">(.*?)</th>(.*?)</tr>', body)
    found = {}
    for name, cells in rows:
        texts = re.findall(r"<td[^>]*>(.*?)</td>", cells)
        found[re.sub(r"<.*?>", "", name)] = [re.sub(r"<.*?>", " ", text).strip() for text in texts]
    return found


def test_fates_are_told_by_group_and_beside_the_evaluation(split: Split, positive: tuple[Path, Result]) -> None:
    told = section(page_of(positive[0], split, positive[1])[0], "fates")
    # make_run: 20 items held; of the other 40 unlearnable, those whose number is a multiple of 3 were never solved
    never = 3 * len([number for number in range(20, 60) if number % 3 == 0])
    groups = cells_of(told, "fates")
    assert [cell.split()[0] for cell in groups["unlearnable"][1:]] == ["180", str(never), str(120 - never), "0", "60"]
    assert groups["unlearnable"][-1] == "60 33.3\u202f%"
    assert list(groups) == ["unlearnable", "easy", "learnable"]
    by_fate = cells_of(told, "fate and evaluation")
    assert by_fate["held"][0] == "60" and by_fate["held"][2:] == ["60 100.0\u202f%", "60 100.0\u202f%"]
    assert by_fate["never"][0] == str(never) and by_fate["never"][3] == "0 0.0\u202f%"
    first = cells_of(told, "first correct rollouts")["unlearnable"]
    steps = sorted(7 + n for n in range(60) if n < 20 or n % 3 for _ in SEEDS)
    by_hand = [str(steps[-(-len(steps) * tenths // 20) - 1]) for tenths in (2, 5, 10, 15, 18)]
    assert first == [f"{len(steps)} of 180", *by_hand, "420", "80.0\u202f%"]  # 60 x 5, of which 4 valid, and 120 x 1


def test_items_that_training_never_drew_are_told_apart(split: Split, tmp_path: Path) -> None:
    """Also that fates stay as they are where the rollouts of the training were not kept, or only some of them."""
    make_run(tmp_path, split, converts=20)
    result = make_result(split, 20, gain=0.325, interval=(0.12, 0.49))
    table = tables.read_parquet(tmp_path / "fates.parquet").to_pylist()
    for row in table:
        row["rewarded"] = 0 if row["fate"] == "never" else 1
    tables.write_parquet(tmp_path / "fates.parquet", pa.Table.from_pylist(table))
    told = section(page_of(tmp_path, split, result)[0], "fates")
    assert "not drawn" not in told.casefold()

    never = [place for place in range(20, 60) if place % 3 == 0]
    undrawn = {split.items[place].item_id for place in never[:5]}

    def ledger(missing: set[str]) -> None:
        for seed in SEEDS:
            rows = [
                dict.fromkeys(ROLLOUTS.names) | {"step": 0, "item_id": item.item_id, "source": "policy"}
                for item in split.items
                if item.item_id not in missing
            ]
            path = tmp_path / str(seed) / "rollouts" / "000001.parquet"
            tables.write_parquet(path, pa.Table.from_pylist(rows, schema=ROLLOUTS))

    ledger(undrawn)
    html, page = page_of(tmp_path, split, result)
    told = cells_of(section(html, "fates"), "fates")["unlearnable"]
    assert f"{5 * len(SEEDS)} not drawn" in told[2] and told[2].split()[0] == str(len(never) * len(SEEDS))
    data = browser_of(page)
    fates = {row[0]: row[4] for row in data["rows"]}
    assert data["fates"]["."] == "not drawn" and {name for name, of in fates.items() if of == "..."} == undrawn
    rows = csv.DictReader((tmp_path / "items.csv").read_text().splitlines())
    assert {row["item_id"] for row in rows if row["fates"] == "..."} == undrawn
    ledger({*undrawn, split.items[0].item_id})  # that item was rewarded: files are missing
    assert "not drawn" not in section(page_of(tmp_path, split, result)[0], "fates").casefold()


def test_the_null_controls_curves_stand_beside_the_runs(tmp_path: Path) -> None:
    split, folder = make_split(tmp_path / "tiny", probes=True), tmp_path / "run"
    make_run(folder, split, converts=3)

    def write(place: Path, seeds: tuple[int, ...], rate: float, steps: int = 100) -> None:
        rows = [
            {"seed": seed, "step": step, "group": group, "rollouts": 8, "correct": round(8 * rate)}
            for seed in seeds
            for step in range(steps)
            for group in ("easy", "learnable", "unlearnable")
        ]
        tables.write_parquet(place / "curves.parquet", pa.Table.from_pylist(rows, schema=pa.schema([*SCHEMA.items()])))

    result = make_result(split, 3, gain=0.03, interval=(-0.1, 0.1))
    write(folder, SEEDS, 0.75)
    told = section(page_of(folder, split, result)[0], "training")
    assert "easy: 75 % in the first 25 steps, 75 % in the last" in told
    assert told.count('class="band') == 3 and "was made before they were kept" in told
    write(split.path / "null_control" / "1x", NULL_SEEDS, 0.5)
    told = section(page_of(folder, split, result)[0], "training")
    assert told.count('class="band') == 6 and "before they were kept" not in told
    write(folder, SEEDS, 0.75, steps=24)  # a short run has shorter means, so that it is a line and not a dot
    told = section(page_of(folder, split, result)[0], "training")
    assert "easy: 75 % in the first 3 steps" in told and "means of 3 steps" in told
    assert "smoothed over 3 steps" in told and told.count('class="band') == 6
    easy = re.findall(r'<path d="([^"]*)" class="curve easy"/>', told)
    assert [len(re.findall(r"[ML]", path)) for path in easy] == [8]
    wrong = tables.read_parquet(folder / "curves.parquet").slice(0, 3).to_pylist()
    wrong[1]["correct"] = 9
    tables.write_parquet(folder / "curves.parquet", pa.Table.from_pylist(wrong))
    with pytest.raises(DataError, match=r"curves\.parquet, row 2"):
        write_report(folder, split, result)


# --- items ----------------------------------------------------------------------------------------------------


def test_every_item_is_in_the_csv_as_its_counts_say(split: Split, positive: tuple[Path, Result]) -> None:
    page_of(positive[0], split, positive[1])
    rows = list(csv.DictReader((positive[0] / "items.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["item_id"] for row in rows] == [item.item_id for item in split.items]
    measured = {
        (row["item_id"], row["run"]): row["correct"]
        for row in tables.read_counts(positive[0] / "counts.parquet").to_pylist()
        if row["phase"] == "eval"
    }
    for row, item in zip(rows, split.items, strict=True):
        assert row["correct"].split() == [str(measured[item.item_id, str(seed)]) for seed in SEEDS]
        assert row["n"] == "32 32 32" and row["group"] == item.group
    core = [row for row in rows if row["group"] == "unlearnable"]
    assert [row["seeds_converted"] for row in core] == ["3"] * 20 + ["0"] * 40
    assert [row["seeds_solved"] for row in core] == ["3"] * 20 + ["0"] * 40
    assert core[3]["fates"] == "hhh" and core[21]["fates"] == "nnn" and core[0]["probe"] == "item-000-probe"


def test_items_are_shown_by_the_steps_that_they_take(
    split: Split, positive: tuple[Path, Result], tmp_path: Path
) -> None:
    assert "By difficulty" not in page_of(positive[0], split, positive[1])[0]
    deep = make_split(tmp_path / "deep", probes=True, deep=True)
    make_run(tmp_path, deep, converts=20)
    html, _ = page_of(tmp_path, deep, make_result(deep, 20, gain=0.325, interval=(0.12, 0.49)))
    table = section(html, "groups").split("By difficulty")[1]
    rows = [re.findall(r"<t[hd][^>]*>([^<]*)", row) for row in table.split("<tr>")[1:] if 'scope="row"' in row]
    assert [row[:2] for row in rows] == [["1", "27"], ["2", "27"], ["3", "26"]]
    assert [row[5:] for row in rows] == [["20", "7", "7"], ["20", "7", "7"], ["20", "6", "6"]]
    after = [measured["rate_after"] for measured in csv.DictReader((tmp_path / "items.csv").read_text().splitlines())]
    first = 100 * np.mean([float(rate) for rate in after[::3]])
    assert float(rows[0][3].split()[0]) == pytest.approx(first, abs=0.1)


def test_the_browser_holds_the_same_and_a_few_completions(split: Split, positive: tuple[Path, Result]) -> None:
    html, page = page_of(positive[0], split, positive[1])
    data = browser_of(page)
    assert data["all"] == len(data["rows"]) == len(split.items) and data["seeds"] == list(SEEDS)
    rows = {row[0]: row for row in data["rows"]}
    first = rows["item-003"]
    assert data["groups"][first[1]] == "unlearnable" and first[4] == "hhh" and first[8] == "111"
    assert [row[8] for row in data["rows"][:60]] == ["111"] * 20 + ["000"] * 40  # the converted come first
    assert [text[0] for text in first[12]] == [0, 1] * 3 and first[12][1][4] == "9*4>\\boxed{36}"
    marks = re.findall(r'data-item="(item-\d+)"', section(html, "items"))
    assert sorted(marks) == sorted(split.ids("unlearnable"))
    assert section(html, "items").count('href="#diamond"') == 20 + 1  # and one in the key


def test_completions_are_found_far_down_and_across_files(tmp_path: Path) -> None:
    ids = ["a", "b", "c"]
    rows = [
        {"sample": k // 4, "item_id": "abcx"[k % 4], "correct": k % 7 == 0, "reason": None, "completion": f"text {k}"}
        for k in range(40_000)
    ]
    for seed, part in (("1", rows[:35_000]), ("2", rows[35_000:])):
        tables.write_parquet(tmp_path / seed / "evaluation" / "items.parquet", pa.Table.from_pylist(part))
    found = examples(tmp_path, ["1", "2"], ids)
    for item in ids:
        for right in (False, True):
            last = [row["completion"] for row in rows if row["item_id"] == item and row["correct"] is right][-3:]
            assert [one.text for one in found[item] if one.correct is right] == last
    assert {(one.seed, one.reason, one.step) for some in found.values() for one in some} == {("2", "", None)}
    tables.write_parquet(tmp_path / "1" / "evaluation" / "items.parquet", pa.table({"sample": [1]}))
    with pytest.raises(DataError, match=r"items.parquet is not a readable table of rollouts: it has no .* 'item_id'"):
        examples(tmp_path, ["1"], ids)


def test_completions_are_the_last_of_training(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path, split, converts=3)
    rows = [
        {"step": step, "item_id": "item-000", "correct": step % 2 == 0, "reason": "match", "completion": f"text {step}"}
        | {"source": "policy"}
        for step in range(12)
    ]
    for place, part in ((1, rows[:6]), (2, rows[6:])):
        tables.write_parquet(tmp_path / "1" / "rollouts" / f"{place:06d}.parquet", pa.Table.from_pylist(part))
    data = Items(Run(tmp_path, split, make_result(split, 3, gain=None))).browser()
    texts = next(row[12] for row in data["rows"] if row[0] == "item-000")
    assert sorted((text[0], text[2], text[4]) for text in texts) == [
        *((0, step, f"text {step}") for step in (7, 9, 11)),
        *((1, step, f"text {step}") for step in (6, 8, 10)),
    ]


def test_what_does_not_fit_is_said(split: Split, positive: tuple[Path, Result]) -> None:
    items = Items(Run(positive[0], split, positive[1]))
    data = items.browser(most=6_000)
    assert 0 < len(data["rows"]) < data["all"] == len(split.items)
    assert len(json.dumps(data)) < 12_000
    context = sections(Run(positive[0], split, positive[1]), most=6_000)
    assert len(context["browser"]) < 12_000


def test_a_long_page_stays_below_a_megabyte(tmp_path: Path) -> None:
    split, folder = make_split(tmp_path / "tiny", unlearnable=900), tmp_path / "run"
    make_run(folder, split, converts=20)
    for seed in SEEDS:
        rows = [
            {"item_id": item.item_id, "sample": sample, "completion": "<long> & " * 4000, "correct": sample == 1}
            for item in split.items
            for sample in range(2)
        ]
        tables.write_parquet(folder / str(seed) / "evaluation" / "items.parquet", pa.Table.from_pylist(rows))
    html, page = page_of(folder, split, make_result(split, 20, gain=0.02, interval=(-0.1, 0.1)))
    assert len(html.encode()) < 1_000_000
    assert len(browser_of(page)["rows"]) > 100
    assert item_module.MAX_DATA < 700_000


# --- what the page is -----------------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes(split: Split, positive: tuple[Path, Result]) -> None:
    first = write_report(positive[0], split, positive[1]).read_bytes()
    assert write_report(positive[0], split, positive[1]).read_bytes() == first


def test_the_page_loads_nothing_and_runs_one_script(split: Split, positive: tuple[Path, Result]) -> None:
    html, page = page_of(positive[0], split, positive[1])
    bare = html.replace("http://www.w3.org/2000/svg", "")  # a name in the script, not an address
    assert not re.search(r"https?:|@import|url\((?!#)", bare)
    assert not {"link", "iframe", "object", "image"} & set(page.tags)
    assert "src" not in page.attributes and "default-src 'none'" in html
    assert page.tags.count("script") == 2 and page.scripts[1] == source("report.js")
    assert f"script-src '{script_hash(page.scripts[1])}'" in html and "innerHTML" not in page.scripts[1]
    assert not any(name.startswith("on") for name in page.attributes)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    split = make_split(tmp_path / "tiny", hostile=True)
    folder = tmp_path / "run"
    make_run(folder, split, converts=20, hostile=True)
    files.write_json(folder / "1" / "environment.json", {"python": HOSTILE, "lone": "\\ud800"})
    method = MethodRecord(name=HOSTILE, source_hash=HOSTILE, track="verifier", settings={HOSTILE: [HOSTILE]})
    _, page = page_of(folder, split, make_result(split, 20, gain=0.3, interval=(0.1, 0.5), method=method))
    assert page.tags.count("script") == 2 and "img" not in page.tags
    assert not any(name.startswith("on") for name in page.attributes)
    assert HOSTILE.replace("\u202e", "\\u{202e}") in page.text and "\u202e" not in page.text
    # only ever shown as text, its hidden character spelled out
    assert any(HOSTILE.replace("\u202e", "\\u{202e}") in row[9] for row in browser_of(page)["rows"])


def test_data_cannot_end_its_block() -> None:
    data = {"text": "</script><!-- & \u2028 \ud800", "n": [1]}
    written = str(script_json(data))
    assert not re.search("[<>&\u2028\ud800]", written)
    assert json.loads(written) == {"text": "</script><!-- & \u2028 \ufffd", "n": [1]}


# --- the command ----------------------------------------------------------------------------------------------


def test_report_is_rebuilt_from_files_without_torch(split: Split, positive: tuple[Path, Result]) -> None:
    folder, result = positive
    files.write_json(folder / "result.json", result)
    before = write_report(folder, split, result).read_bytes()
    (folder / "report.html").unlink()
    done = CliRunner().invoke(command, [str(folder), "--split", str(split.path)])
    assert done.exit_code == 0 and done.output == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == before
    code = "import sys, unlearnbench.reports.run_report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rebuild_refuses_what_is_no_run_or_another_splits(split: Split, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no result"):
        rebuild(tmp_path, split.path)
    files.write_json(tmp_path / "result.json", make_result(split, 20, gain=None, split_hash="other"))
    with pytest.raises(SplitError, match="other labels"):
        rebuild(tmp_path, split.path)


def test_rebuild_refuses_a_result_without_seeds(split: Split, tmp_path: Path) -> None:
    wrong = make_result(split, 20, gain=None).model_dump(mode="json") | {"seeds": []}
    (tmp_path / "result.json").write_text(json.dumps(wrong))
    with pytest.raises(DataError, match=r"result\.json.*seeds"):
        rebuild(tmp_path, split.path)


def test_rebuild_finds_the_split_that_holds_a_run_or_asks_for_its_folder(split: Split, tmp_path: Path) -> None:
    inside, outside = split.path / "null_control" / "1x", tmp_path / "elsewhere"
    for folder in (inside, outside):
        files.write_json(folder / "result.json", make_result(split, 20, gain=None))
    assert rebuild(inside) == inside / "report.html"
    with pytest.raises(SplitError, match=f"{split.name}.* is not among the shipped ones; name its folder with --split"):
        rebuild(outside)


def test_long_runs_and_many_items_are_drawn_small() -> None:
    from unlearnbench.reports.charts import Line, lines

    steps = np.arange(400.0)
    svg = lines([Line("a", "easy", steps, np.linspace(0, 1, 400), np.zeros(400), np.ones(400))], share=True, label="a")
    assert len(svg) < 20_000
