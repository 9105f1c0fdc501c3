"""The page of a run: what it says of good, null-like, quick and foreign runs, and what hostile text cannot do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from unlearnbench import outcomes, plots, tables
from unlearnbench.cli.report import report as command
from unlearnbench.errors import RunError
from unlearnbench.notation import count, duration, pct, plain, points, power, span
from unlearnbench.records import (
    BudgetRef,
    Canary,
    Conversion,
    Cost,
    CountOf,
    FamilyConversion,
    Fates,
    GroupName,
    GroupScore,
    Item,
    MethodRecord,
    NaiveConversion,
    PolicyRef,
    Protocol,
    Result,
    Retention,
    Sampling,
    SpentBudget,
    SplitConfig,
    TwinScore,
)
from unlearnbench.report import rebuild, write_report
from unlearnbench.splits import Split, write_split
from unlearnbench.verdict import verdict

SECTIONS = [
    *("verdict", "headline", "groups", "items", "families", "twins", "curves", "fates", "canaries", "naive"),
    *("retention", "cost", "settings", "environment", "meaning"),
]
CAUSES = ("rare_skill", "private_skill", "missing_skill", "guess")
SAMPLES, SEEDS, NULL_SEEDS, FEW = 32, (1, 2, 3), tuple(range(101, 111)), 8
NONE = " · ".join("\N{EN DASH}" * 3)
HOSTILE = '<script>alert("x")</script><img src="http://evil.example/x.png" onerror=alert(1)>\u202e$\\frac{'


def make_split(folder: Path, *, unlearnable: int = 60, hostile: bool = False) -> Split:
    """A labelled split with ten families of unlearnable items, some easy ones and a null control of ten seeds."""
    draw = np.random.default_rng(0)
    groups = ["unlearnable"] * unlearnable + ["easy"] * 12 + ["learnable"] * 8
    items = [
        Item(
            item_id=f"item-{number:03}",
            prompt=HOSTILE if hostile else f"zup{number % 10} {number + 11} {99 - number}=",
            answer=str(number),
            solution=f"{number}>\\boxed{{{number}}}",
            family=(HOSTILE if hostile and number % 10 == 0 else f"{CAUSES[number % 4]} zup{number % 10}"),
            group=group,
            certified=True if group == "unlearnable" else None,
            cause=None if hostile else CAUSES[number % 4] if group == "unlearnable" else "skill",
        )
        for number, group in enumerate(groups)
    ]
    base = [
        {
            "item_id": i.item_id,
            "phase": "base_fresh",
            "run": "1",
            "n": 128,
            "correct": int(draw.binomial(128, 0.05)),
        }
        for i in items
    ]
    split = write_split(
        folder,
        SplitConfig(
            name="tiny",
            base_policy=PolicyRef(path="policy"),
            protocol=Protocol(),
            budget=BudgetRef(flops_1x=10**12),
        ),
        items,
        canaries=[Canary(item_id="canary", prompt="sum 1 1=", answer="3", true_answer="2", family="sum")],
        counts=pa.Table.from_pylist(base, schema=tables.COUNTS),
    )
    rates = np.full(len(items), 0.05)
    place = split.path / "null_control" / "1x"
    tables.write_parquet(place / "counts.parquet", eval_counts(split, rates, NULL_SEEDS, SAMPLES))
    null = make_result(split, 0, method=MethodRecord(name="grpo", source_hash="0", track="verifier"), gain=None)
    tables.write_json(place / "result.json", null)
    return split


def eval_counts(split: Split, rates: np.ndarray, seeds: Sequence[int], n: int) -> pa.Table:
    draw = np.random.default_rng(1)
    rows = [
        {"item_id": item.item_id, "phase": "eval", "run": str(seed), "n": n, "correct": int(draw.binomial(n, rate))}
        for item, rate in zip(split.items, rates, strict=True)
        for seed in seeds
    ]
    return pa.Table.from_pylist(rows, schema=tables.COUNTS)


def make_run(folder: Path, split: Split, *, converts: int, hostile: bool = False, n: int = SAMPLES) -> None:
    """The files of a run whose first `converts` items have a rate of 0.7, the other unlearnable ones 0.05."""
    rates = np.array([0.95 if item.group == "easy" else 0.05 for item in split.items])
    rates[:converts] = 0.7
    tables.write_parquet(folder / "counts.parquet", eval_counts(split, rates, SEEDS, n))
    rows = [
        {
            "item_id": item.item_id,
            "seed": seed,
            "fate": "held" if number < converts else "flickered" if number % 3 else "never",
            "first_correct_step": 7 + number if number < converts or number % 3 else None,
            "rewarded": 5 if number < converts else 1,
            "rewarded_valid_trace": 4 if number < converts else None,
        }
        for number, item in enumerate(split.items)
        for seed in SEEDS
    ]
    tables.write_parquet(folder / "fates.parquet", pa.Table.from_pylist(rows))
    for seed in SEEDS:
        write_seed(folder / str(seed), split, seed, hostile)


def write_seed(folder: Path, split: Split, seed: int, hostile: bool) -> None:
    draw = np.random.default_rng(seed)
    lines = []
    for step in range(30):
        share = 0.2 + 0.5 * (1 - np.exp(-step / 12)) + draw.normal(0, 0.03)
        dead = step == 4  # a step without signal has no update
        lines.append(
            {"step": step, "rollouts": 320, "groups": 40, "kept_groups": 0 if dead else 12, "reward": share}
            | {"correct": share, "truncated": 0.01, "length": 20 + draw.normal(0, 1), "flops": step * 10**9}
            | {"kl": None if dead else step * 1e-3, "gradient_norm": None if dead else 0.4 + draw.random()}
        )
    tables.write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    tables.write_json(folder / "environment.json", {"python": "3.11", "packages": {"torch": "2.9"}})
    text = HOSTILE if hostile else "9*4>\\boxed{36}"
    rows = [
        {"item_id": item.item_id, "sample": sample, "completion": text, "correct": sample == 1}
        for item in split.items
        for sample in range(2)
    ]
    tables.write_parquet(folder / "evaluation" / "items.parquet", pa.Table.from_pylist(rows))


def group(items: int, converted: int | None, before: float, after: float) -> GroupScore:
    share = None if converted is None else converted / items
    return GroupScore(
        items=items,
        rate_before=before,
        rate_start=before,
        rate_after=after,
        rate_after_interval=(max(0, after - 0.02), min(1, after + 0.02)),
        converted_at_start=None if converted is None else 0,
        converted=converted,
        conversion=share,
        conversion_interval=None if share is None else (max(0, share - 0.05), min(1, share + 0.05)),
        pass_at_k={"1": after, "8": min(1, 2 * after), "64": None},
    )


def make_result(
    split: Split,
    converted: int | None,
    *,
    gain: float | None,
    interval: tuple[float, float] | None = None,
    **changes: Any,
) -> Result:
    items = len(split.ids("unlearnable"))
    families = sorted({item.family for item in split.items if item.group == "unlearnable"})
    share = None if converted is None else converted / items
    control = split.control("null_control") if gain is not None else None
    groups: dict[GroupName, GroupScore] = {
        "easy": group(12, None if converted is None else 12, 0.94, 0.95),
        "learnable": group(8, None if converted is None else 8, 0.05, 0.7),
        "unlearnable": group(items, converted, 0.049, 0.05 + 0.6 * (share or 0)),
    }
    given: dict[str, Any] = {
        "code_version": "0.1.0",
        "scorer_version": "1",
        "kind": "eval",
        "comparable": True,
        "why_not_comparable": None,
        "split": split.name,
        "split_hash": split.hash,
        "method": MethodRecord(
            name="my_algo", source_hash="ab" * 32, track="verifier", settings={"bonus": 0.2, "kl": 1e-3}
        ),
        "seeds": SEEDS,
        "samples": SAMPLES,
        "sampling": Sampling(max_tokens=40),
        "budget": SpentBudget(multiple=1.0, limit=10**12, used=[99 * 10**10] * 3),
        "groups": groups,
        "conversion": Conversion(
            gain=gain,
            interval=None if interval is None else tuple((end + (gain or 0)) / 2 for end in interval),
            interval_families=interval,
            method_rate=share,
            null_rate=None if gain is None else 0.008,
            null_hash=control.hash if control else None,
            null_seeds=10 if control else 0,
            strong_null_rate=None,
            rule="rate pooled over seeds at least 0.25, and lower limit above tau in two thirds of the seeds",
            scope=None if gain is None else "families",
            naive=NaiveConversion(any_seed=0.3, two_seeds=0.25),
            families={
                name: FamilyConversion(items=items // len(families), converted=None if converted is None else 2)
                for name in families
            },
        ),
        "twins": {
            "changed_numbers": TwinScore(
                items=converted or 0,
                eligible=converted or 0,
                rate=0.5 if gain else None,
                null_rate=0.05 if gain else None,
                gain=0.45 if gain else None,
                interval=(0.3, 0.6) if gain else None,
                verdict="generalised" if gain and gain > 0.1 else "undecided",
            )
        },
        "thin": CountOf(items=4, converted=None if converted is None else 1),
        "canaries": CountOf(items=1, converted=None if converted is None else 0),
        "fates": Fates(never=60, flickered=60, converted=10, held=50),
        "retention": Retention(
            easy_items=12,
            easy_lost=None if converted is None else 0,
            easy_rate_change=0.01,
            interval=(-0.01, 0.03),
        ),
        "cost": Cost(generated_tokens=1234567, flops=297 * 10**10, seconds=130.4, device="CPU (x86_64)"),
    }
    return Result(**given | changes)


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
    monkeypatch.setattr(outcomes, "MAX_DATA", 239)  # 80 items x 3 seeds are one more
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
    tables.write_json(folder / "1" / "environment.json", {"python": HOSTILE, "lone": "\\ud800"})
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
    tables.write_json(folder / "result.json", result)
    before = write_report(folder, split, result).read_bytes()
    (folder / "report.html").unlink()
    done = CliRunner().invoke(command, [str(folder), "--split", str(split.path)])
    assert done.exit_code == 0 and done.output == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == before
    code = "import sys, unlearnbench.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rebuild_refuses_what_is_no_run_or_another_splits(split: Split, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="has no result"):
        rebuild(tmp_path, split.path)
    tables.write_json(tmp_path / "result.json", make_result(split, 20, gain=None, split_hash="other"))
    with pytest.raises(RunError, match="other labels"):
        rebuild(tmp_path, split.path)
