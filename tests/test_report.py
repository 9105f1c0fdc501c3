"""The page of a run: what it says of good, null-like, quick and foreign runs, and what hostile text cannot do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner
from made_run import FEW, HOSTILE, SEEDS, make_result, make_run, make_split

from unlearnbench.cli.report import report as command
from unlearnbench.errors import RunError
from unlearnbench.io import files, tables
from unlearnbench.records import Cost, MethodRecord, Result, SpentBudget
from unlearnbench.reports import fate_tables, plots
from unlearnbench.reports.formatting import count, duration, pct, plain, points, power, span
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.run_report import rebuild, write_report
from unlearnbench.splits import Split

SECTIONS = [
    *("verdict", "headline", "groups", "items", "families", "twins", "curves", "fates", "canaries", "naive"),
    *("retention", "cost", "settings", "environment", "meaning"),
]
NONE = " · ".join("\N{EN DASH}" * 3)


class Page(HTMLParser):
    """The tags, section ids, attributes and visible text of a page, as a browser would read them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        identity = dict(attrs).get("id")
        self.ids += [identity] if identity else []
        self.sections += [identity] if tag == "section" and identity else []

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make_split(tmp_path_factory.mktemp("splits") / "tiny")


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


# --- what the page says ---------------------------------------------------------------------------------------


def test_a_positive_result_is_stated_with_its_interval_and_all_sections(
    split: Split, positive: tuple[Path, Result]
) -> None:
    html, page = page_of(positive[0], split, positive[1])
    assert page.sections == SECTIONS
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 4  # gain, items, curves, fates
    sentence = verdict(positive[1]).sentence
    assert sentence.startswith("my_algo converted 33.3\u202f% of 60 unlearnable items, the null control")
    assert "a gain of +32.5 points (95 % interval over families: +12.0 to +49.0 points), which excludes 0" in sentence
    assert "(scope: families; track verifier, budget 1x, 3 seeds)" in sentence
    assert sentence in page.text
    assert any("Not compared with a strong null" in caveat for caveat in verdict(positive[1]).caveats)
    assert "not compared with one: none is shipped for this run" in section(html, "headline")
    rows = re.findall(r'<tr><th scope="row">(item-\d+)</th>', section(html, "items"))
    assert sorted(rows) == [f"item-{number:03}" for number in range(20)]
    assert "9*4&gt;\\boxed{36}" in html
    assert "99.0\u202f%" in page.text and "2.97\u202f×\u202f10¹²" in page.text  # noqa: RUF001
    assert "torch" in page.text and "generalised" in page.text


def test_a_null_like_result_is_not_sold_as_a_gain(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path, split, converts=1)
    result = make_result(split, 1, gain=0.009, interval=(-0.03, 0.05))
    said = verdict(result)
    assert (said.tone, said.label) == ("same", "no more than GRPO re-run")
    assert "holds 0: it did not convert more than GRPO re-run" in said.sentence
    _, page = page_of(tmp_path, split, result)
    assert said.sentence in page.text and "excludes 0" not in page.text


def test_a_quick_run_shows_dashes_with_reasons_and_no_zero(split: Split, tmp_path: Path) -> None:
    make_run(tmp_path, split, converts=3, n=FEW)
    why = "--quick: fewer steps, one seed and 8 samples"
    result = make_result(split, None, gain=None, comparable=False, why_not_comparable=why, samples=FEW)
    _, page = page_of(tmp_path, split, result)
    assert verdict(result).sentence.startswith(f"Not comparable: {why}; with 8 samples an item it is undefined")
    assert "undefined: 8 samples an item, the rule needs 32." in page.text
    headline = page.text[page.text.index("Headline numbers") : page.text.index("Groups before and after")]
    assert re.sub(r"\s+", " ", headline).startswith(f"Headline numbers Conversion gain– {why}")  # noqa: RUF001


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
        twins={},
    )
    _, page = page_of(tmp_path / "run", split, result)
    assert page.sections == SECTIONS and page.tags.count("svg") == 2
    for said in ("never ranked", "this training was not metered", "no metrics", "no fates", "no environment.json"):
        assert said in page.text
    assert "budget unknown" in page.text


def test_a_result_alone_makes_a_page(split: Split, tmp_path: Path) -> None:
    _, page = page_of(tmp_path, split, make_result(split, 20, gain=None))
    assert page.sections == SECTIONS and "svg" not in page.tags
    assert "No gain defined: it has no null control" in page.text


# --- fates ------------------------------------------------------------------------------------------------------


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
    html, _ = page_of(positive[0], split, positive[1])
    told = section(html, "fates")
    # make_run: 20 items held; of the other 40 unlearnable, those whose number is a multiple of 3 were never solved
    never = 3 * len([number for number in range(20, 60) if number % 3 == 0])
    groups = cells_of(told, "fates")
    assert [cell.split()[0] for cell in groups["unlearnable"]] == ["180", str(never), str(120 - never), "0", "60"]
    assert groups["unlearnable"][-1] == "60 33.3\u202f%"
    assert list(groups) == ["unlearnable", "easy", "learnable"]
    assert [row[0] for row in cells_of(told, "fates by seed").values()] == ["60"] * 3

    first = cells_of(told, "first correct rollout")["unlearnable"]
    steps = sorted(7 + number for number in range(60) if number < 20 or number % 3 for _ in SEEDS)
    by_hand = [str(steps[-(-len(steps) * tenths // 20) - 1]) for tenths in (2, 5, 10, 15, 18)]
    assert first == [f"{len(steps)} of 180", str(never), *by_hand]

    rewarded = cells_of(told, "rewarded rollouts")
    assert rewarded["unlearnable"] == ["420", "300", "240", "80.0\u202f%"]  # 60 x 5, of which 4 valid, and 120 x 1
    assert rewarded["easy"][:2] == ["36", "0"] and "none" in told  # no trace of theirs could be judged

    by_fate = cells_of(told, "fate and evaluation, by seed")
    assert by_fate["held"][0] == "60" and by_fate["held"][2:] == ["60 100.0\u202f%", "60 100.0\u202f%"]
    assert by_fate["never"][0] == str(never) and by_fate["never"][3] == "0 0.0\u202f%"
    best = cells_of(told, "fate and evaluation, by item")
    assert list(best.values()) == [
        ["20", "20 100.0\u202f%"],
        ["0", "0"],
        ["0", "0"],
        [str(40 - never // 3), "0 0.0\u202f%"],
        [str(never // 3), "0 0.0\u202f%"],
    ]
    assert sum(int(row[0]) for row in best.values()) == 60


def test_every_unlearnable_items_fate_is_on_the_page_and_in_its_data(
    split: Split, positive: tuple[Path, Result]
) -> None:
    html, _ = page_of(positive[0], split, positive[1])
    rows = cells_of(section(html, "fates"), "each unlearnable item")
    assert sorted(rows) == sorted(split.ids("unlearnable"))
    assert rows["item-003"][1:5] == ["hhh", "10 · 10 · 10", "5 · 5 · 5", "4 · 4 · 4"] and rows["item-003"][7] == "yes"
    assert rows["item-021"][1:5] == ["nnn", NONE, "1 · 1 · 1", NONE] and rows["item-021"][7] == "no"
    assert [row[7] for row in rows.values()] == ["yes"] * 20 + ["no"] * 40

    links = re.findall(r'<a download="fates.json" href="data:application/json,([^"]*)">', html)
    data = json.loads(unquote(links[0]))
    assert data["seeds"] == list(SEEDS) and data["split_hash"] == split.hash
    columns = data["items"]
    assert {len(column) for column in columns.values()} == {len(split.items)}
    assert columns["item_id"] == [item.item_id for item in split.items]
    letters = {"n": "never", "f": "flickered", "c": "converted", "h": "held"}
    assert data["fates"] == letters
    places = [(place, seed) for place in range(len(split.items)) for seed in range(len(SEEDS))]
    for row, (place, seed) in zip(tables.read_parquet(positive[0] / "fates.parquet").to_pylist(), places, strict=True):
        assert (row["item_id"], row["seed"]) == (columns["item_id"][place], SEEDS[seed])
        assert row["fate"] == letters[columns["fate"][place][seed]]
        for name in ("first_correct_step", "rewarded", "rewarded_valid_trace"):
            assert row[name] == columns[name][place][seed]
    measured = {
        (row["item_id"], row["run"]): (row["correct"], row["n"])
        for row in tables.read_counts(positive[0] / "counts.parquet").to_pylist()
    }
    for place, seed in places:
        name = columns["item_id"][place]
        assert measured[name, str(SEEDS[seed])] == (columns["correct"][place][seed], columns["n"][place][seed])
    fresh = {row["item_id"]: row["correct"] / row["n"] for row in split.counts().to_pylist()}
    assert columns["rate_before"] == [round(fresh[name], 6) for name in columns["item_id"]]
    assert sum(columns["converted"][:60]) == 20


def test_a_run_too_large_for_its_page_names_the_files(
    split: Split, positive: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fate_tables, "MAX_DATA", 239)  # 80 items x 3 seeds are one more
    html, page = page_of(positive[0], split, positive[1])
    assert "data:application" not in html and "fates.parquet and counts.parquet" in page.text


def test_fates_of_a_result_alone_are_its_counts(split: Split, tmp_path: Path) -> None:
    html, _ = page_of(tmp_path, split, make_result(split, 20, gain=None))
    told = section(html, "fates")
    assert [cell.split()[0] for cell in cells_of(told, "fates")["unlearnable"]] == ["180", "60", "60", "10", "50"]
    assert "Each unlearnable item" not in told and "svg" not in told


def test_a_strong_null_is_in_the_numbers_and_the_figure(split: Split, positive: tuple[Path, Result]) -> None:
    beside = {
        "strong_null_rate": 0.05,
        "strong_null_gain": 0.28,
        "strong_null_interval": (-0.02, 0.5),
        "strong_null_seeds": 5,
        "strong_null_factor": 2.0,
    }
    stated = positive[1].model_dump()
    result = Result.model_validate(stated | {"conversion": stated["conversion"] | beside})
    html, page = page_of(positive[0], split, result)
    headline = re.sub(r"<.*?>", " ", section(html, "headline"))
    assert "GRPO at 2x the learning rate; n = 60 items, 5 seeds" in headline
    assert "gain over it +28.0 points" in headline and "over the strong null" in headline
    assert "no more than GRPO at 2x the learning rate" in section(html, "verdict")
    assert "GRPO at 2x the learning rate converts 5.0\u202f% of these items by itself." in page.text


# --- what the page is -----------------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes(split: Split, positive: tuple[Path, Result]) -> None:
    first = write_report(positive[0], split, positive[1]).read_bytes()
    assert write_report(positive[0], split, positive[1]).read_bytes() == first


def test_the_page_loads_nothing(split: Split, positive: tuple[Path, Result]) -> None:
    html, page = page_of(positive[0], split, positive[1])
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(page.tags)
    assert "src" not in page.attributes and "default-src 'none'" in html
    assert len(html) < 1_000_000


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    split = make_split(tmp_path / "tiny", hostile=True)
    folder = tmp_path / "run"
    make_run(folder, split, converts=20, hostile=True)
    files.write_json(folder / "1" / "environment.json", {"python": HOSTILE, "lone": "\\ud800"})
    method = MethodRecord(name=HOSTILE, source_hash=HOSTILE, track="verifier", settings={HOSTILE: [HOSTILE]})
    _, page = page_of(folder, split, make_result(split, 20, gain=0.3, interval=(0.1, 0.5), method=method))
    assert not {"script", "img"} & set(page.tags)
    assert not any(name.startswith("on") for name in page.attributes)
    assert HOSTILE.replace("\u202e", "\\u{202e}") in page.text and "\u202e" not in page.text


def test_numbers_read_well() -> None:
    assert [pct(value) for value in (0.1234, 0.0004, 0.0, 1.0)] == [
        f"{v}\u202f%" for v in ("12.3", "0.04", "0.0", "100.0")
    ]
    assert points(0.051) == "+5.1 points" and points(-0.051) == "\N{MINUS SIGN}5.1 points"
    assert span((0.0, 0.0251)) == "0.0 to 2.5\u202f%"
    assert count(1234567) == "1\u202f234\u202f567" and power(0) == "0" and power(123456) == "123\u202f456"
    assert duration(12.34) == "12.3 s" and duration(130.4) == "2 min 10 s" and duration(7300) == "2 h 1 min"
    assert plain("a\u202eb\x00\n") == "a\\u{202e}b\\u{0}\n"


def test_figures_stand_long_runs_and_many_items() -> None:
    steps = plots.learning_curves([plots.Panel("reward", "", {"1": np.linspace(0, 1, 9999), "2": np.ones(700)})])
    rate = np.linspace(0, 1, 3000)
    items = plots.conversion_plot(
        plots.Rates(rate, rate, rate), [f"f{n % 12}" for n in range(3000)], tau=0.1, threshold=0.25
    )
    fates = [plots.Fated(f"group {n}", [1, 2, 3, 4], np.arange(9999)) for n in range(7)]
    assert len(plots.fates_plot(fates, ("never", "flickered", "converted", "held"))) < 200_000
    assert "other (" in items and "var(--series-7)" in items and "#0d0e" not in items + steps
    assert len(steps) < 100_000


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
    with pytest.raises(RunError, match="other labels"):
        rebuild(tmp_path, split.path)
