"""The leaderboard's site: what its pages say, what hostile text cannot do, and how it behaves in a real browser."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pyarrow.compute as pc
import pytest
from board_site import Page, board_of, pages
from click.testing import CliRunner
from made_run import make_split

from unlearnbench.cli.eval import evaluate, parse_changes
from unlearnbench.cli.leaderboard import build as command
from unlearnbench.errors import DataError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.leaderboard.board import board
from unlearnbench.leaderboard.entries import read_entries
from unlearnbench.leaderboard.site.board_page import Scale, lines
from unlearnbench.leaderboard.site.build import build
from unlearnbench.leaderboard.site.controls import control_lines
from unlearnbench.leaderboard.site.downloads import BoardFile
from unlearnbench.leaderboard.site.method_source import MethodSource, read_source
from unlearnbench.leaderboard.site.split_page import SplitFacts
from unlearnbench.records import Result
from unlearnbench.scoring.probes import probes_of
from unlearnbench.splits import Split, find_split


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return make_split(tmp_path_factory.mktemp("splits") / "tiny", hostile=True, probes=True)


@pytest.fixture(scope="module")
def entries(tiny: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return board_of(tmp_path_factory.mktemp("board") / "entries", tiny)


@pytest.fixture(scope="module")
def site(entries: Path, tiny: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real splits and made-up entries on a split of ten families."""
    return build(entries, tmp_path_factory.mktemp("site"), [tiny.path]).parent


# --- what the pages say -------------------------------------------------------------------------------------------


def test_the_phenomenon_is_shown_on_a_split_whose_rollouts_are_there(site: Path) -> None:
    html = (site / "phenomenon.html").read_text(encoding="utf-8")
    assert "Here are three of them" in html and html.count('class="example"') == 3


def test_every_entry_and_split_has_a_page_and_every_link_leads_somewhere(site: Path) -> None:
    found = {path: Page(path) for path in pages(site)}
    names = {path.relative_to(site).as_posix() for path in found}
    wanted = {f"entry/{name}-1x/index.html" for name in ("better", "nothing", "hostile", "told", "gone")} | {
        "entry/silent-4x/index.html"
    }
    wanted |= {"index.html", "phenomenon.html", "split/micro/index.html", "split/tiny/index.html"}
    assert wanted <= names
    ids = {path.resolve(): {of["id"] for _, of in page.tags if "id" in of} for path, page in found.items()}
    checked = 0
    for path, page in found.items():
        for tag, of in page.tags:
            link = of.get("href") or (of.get("src") if tag in ("script", "img") else None)
            if not link or link.startswith(("data:", "https://example.org/", "https://arxiv.org/")):
                continue
            if tag == "use":  # a marker of a figure
                continue
            target, fragment = urldefrag(link)
            place = (path.parent / unquote(target)).resolve() if target else path.resolve()
            assert place.is_file(), (path, link)
            assert not fragment or fragment in ids[place], (path, link)
            checked += 1
    assert checked > 100


def test_the_board_shows_ranks_of_their_own_group_and_what_is_no_more_than_chance(
    site: Path, entries: Path, tiny: Split
) -> None:
    page = Page(site / "index.html")
    standing = {row.entry.id: row.standing for row in board(read_entries(entries), lambda _: tiny)}
    assert standing["better-1x"].rank == standing["nothing-1x"].rank == (1, 3)  # three seeds separate nothing
    assert "1\N{EN DASH}3<small>of 3</small>" in page.row("better-1x")
    assert "Rank 1\N{EN DASH}3 of 3 among" in Page(site / "entry/nothing-1x/index.html").text
    assert "No gain over GRPO detected" in page.row("nothing-1x")
    assert "No gain over GRPO detected" not in page.row("better-1x")
    assert "1<small>of 1</small>" in page.row("told-1x")  # another tier is ranked by itself
    assert "no rank: withdrawn: a leak" in page.row("gone-1x")
    assert "<option selected>re-trained</option>" in page.source and "<option selected>pooled</option>" in page.source
    order = re.findall(r'<a href="entry/([^/]+)/index', page.source)
    of_tier = ["better-1x", "hostile-1x", "nothing-1x", "gone-1x", "silent-4x"]
    assert order == [*of_tier, *of_tier, "told-1x", "told-1x"]  # over all editions, then in each


def test_a_result_of_score_version_1_is_shown_and_not_ranked(entries: Path, tiny: Split, tmp_path: Path) -> None:
    few = tmp_path / "entries"
    for name in ("better-1x", "nothing-1x"):
        shutil.copytree(entries / name, few / name)
    path = few / "better-1x" / "1" / "result.json"
    files.write_json(path, json.loads(path.read_text()) | {"schema_version": 1})
    site = build(few, tmp_path / "site", [tiny.path]).parent
    page = Page(site / "index.html")
    assert "score version 1" in page.row("better-1x") and "<b>" not in page.row("better-1x")  # no gain beside others
    assert "1<small>of 1</small>" in page.row("nothing-1x")
    assert (
        "No rank: score version 1, which counted memory as conversion."
        in Page(site / "entry/better-1x/index.html").text
    )


def test_intervals_are_drawn_where_their_numbers_lie(site: Path) -> None:
    page = Page(site / "index.html")
    drawn = re.search(r'x1="([\d.]+)%" x2="([\d.]+)%" y1="9".*?cx="([\d.]+)%', page.row("better-1x"))
    zero = re.search(r'class="zero" x1="([\d.]+)%', page.row("better-1x"))
    assert drawn and zero
    low, high, gain = (float(value) for value in drawn.groups())
    # The axis ends at -10 and +80 points, and takes 95 % of the width from 2.5 % on, by square roots.
    left, whole = 10**0.5, 10**0.5 + 80**0.5
    assert (low, gain, high) == pytest.approx([2.5 + 95 * (v**0.5 + left) / whole for v in (40, 60, 80)], abs=0.01)
    assert float(zero[1]) == pytest.approx(2.5 + 95 * left / whole, abs=0.01)
    assert Scale(-0.1, 1.0).ticks == [(0.0, "0"), (1.0, "+100")]  # -10 would run into 0
    assert [text for _, text in Scale(-0.3, 0.5).ticks] == ["\N{MINUS SIGN}30", "0", "+50"]


def test_a_row_says_what_its_method_does_and_links_its_paper(site: Path) -> None:
    """From the entry's own source, which is read and never executed."""
    row = Page(site / "index.html").row("silent-4x")
    assert "GRPO with dynamic sampling" in row and 'href="https://arxiv.org/abs/2402.03300"' in row


@pytest.mark.parametrize(
    ("text", "does", "paper"),
    [
        ('"""Dr. GRPO: no division by length. More."""', "Dr. GRPO: no division by length.", None),
        ('class A:\n    """Of the class."""\n    source = "arXiv 2503.20783"', "Of the class.", "2503.20783"),
        ('class A:\n    source: str = "see arxiv:2402.14740v2"', "", "2402.14740"),
        ('class A:\n    source = "javascript:alert(1)"', "", None),
        ("class A:\n    source = open('x')", "", None),
        ("no python at all", "", None),
        ("(" * 10_000, "", None),
    ],
)
def test_what_a_source_says_of_itself(tmp_path: Path, text: str, does: str, paper: str | None) -> None:
    path = tmp_path / "method.py"
    path.write_text(text, encoding="utf-8")
    assert read_source(path) == MethodSource(does, paper and f"https://arxiv.org/abs/{paper}")
    (tmp_path / "link.py").symlink_to(path)
    assert read_source(tmp_path / "link.py") == read_source(tmp_path / "none.py") == MethodSource()


def test_controls_are_pinned_above_the_entries_without_a_rank(tiny: Split, site: Path) -> None:
    source = Page(site / "index.html").source
    pinned = source[source.index('<tbody class="controls">') : source.index('<tbody class="rows">')]
    assert "control, not ranked" in pinned and 'href="entry/' not in pinned
    null = next(row for row in SplitFacts(tiny).controls if row.name == "null control")
    assert null.converted is not None and f"converts {100 * null.converted:.1f}" in pinned


def test_a_pinned_control_is_the_mean_over_the_editions_that_all_have_it(
    entries: Path, tiny: Split, micro: Split
) -> None:
    found = lines(read_entries(entries), lambda _: tiny, lambda _: "first")
    single = {line.id: line for line in found if not line.pooled}
    better = next(line for line in found if line.pooled and line.id == "better-1x")
    pool = better.standing.model_copy(update={"entries": ["better-1x", "nothing-1x"]})
    shown = [replace(better, standing=pool), single["better-1x"], replace(single["nothing-1x"], split="second")]
    facts = {"first": SplitFacts(micro), "second": SplitFacts(tiny)}
    rows = {(row.edition, row.split, row.name): row for row in control_lines(shown, facts)}
    of_micro = {row.name: row for row in facts["first"].controls}
    nulls = [row.converted or 0 for of in facts.values() for row in of.controls if row.name == "null control"]
    assert len(nulls) == 2
    assert rows["pooled", "first", "GRPO re-run"].converted == pytest.approx(sum(nulls) / 2)
    assert rows["pooled", "first", "GRPO re-run"].gain == 0
    ceiling = of_micro["positive control"].converted
    assert ceiling is not None and rows["1", "first", "ceiling"].gain == pytest.approx(ceiling - nulls[0])
    assert ("pooled", "first", "ceiling") not in rows  # the other split has none
    fair = [row for name, row in of_micro.items() if name.startswith("tuned") and (row.easy_lost or 0) <= 0.05]
    assert fair and rows["1", "first", "tuned GRPO"].converted == max(row.converted or 0 for row in fair)


def test_a_row_says_when_its_entry_was_entered(entries: Path, tiny: Split, tmp_path: Path) -> None:
    """By the entry itself, else by its edition; a pooled row says what its newest entry says."""
    board_folder = tmp_path / "board"
    for name in ("better-1x", "nothing-1x"):
        shutil.copytree(entries / name, board_folder / "entries" / name)
    path = board_folder / "entries" / "better-1x" / "1" / "entry.json"
    files.write_json(path, json.loads(path.read_text()) | {"entered": "2031-05-06"})
    edition = {"name": "1", "split": tiny.name, "split_hash": tiny.hash, "entered": "2030-01-02"}
    files.write_json(board_folder / "editions.json", [edition])
    site = build(board_folder / "entries", tmp_path / "site", [tiny.path]).parent
    page = Page(site / "index.html")
    assert 'data-value="2031-05-06">2031-05-06</td>' in page.row("better-1x")
    assert 'data-value="2030-01-02">2030-01-02</td>' in page.row("nothing-1x")
    assert {row.id: row.entered for row in tables.read_json_record(site / "board.json", BoardFile).rows} == {
        "better-1x": "2031-05-06",
        "nothing-1x": "2030-01-02",
    }
    assert "2031-05-06" in Page(site / "entry/better-1x/index.html").text
    assert 'href="entry/better-1x/method.py"' in page.row("better-1x")
    files.write_json(path, json.loads(path.read_text()) | {"entered": "yesterday"})
    with pytest.raises(DataError, match=r"entry\.json, field 'entered'"):
        read_entries(board_folder / "entries")


def test_the_documents_of_a_checkout_are_pages_of_the_site(entries: Path, tiny: Split, tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(entries / "better-1x", checkout / "leaderboard" / "entries" / "better-1x")
    files.write_text(checkout / "README.md", "# The name\n\n[rules](leaderboard/RULES.md#two-words)\n")
    files.write_text(checkout / "leaderboard/RULES.md", "# Rules\n\n## Two words\n\n## `Two` words\n")
    files.write_text(
        checkout / "docs/reference/protocol.md",
        '# Protocol\n\n<a id="3"></a>\n\n![A dot](dot.png) [up](../../README.md) [code](../../a.py) [out](https://x.org)\n\n'
        "| | a |\n|---|---|\n| b | `<i>` |\n\n```bash\necho '<script>'\n```\n",
    )
    files.write_bytes(checkout / "docs" / "reference/dot.png", b"\x89PNG")
    files.write_text(checkout / "docs/README.md", "# Documents\n\n[protocol](reference/protocol.md#3)\n")
    site = build(checkout / "leaderboard" / "entries", tmp_path / "site", [tiny.path]).parent
    page = Page(site / "documents/docs/reference/protocol.html")
    assert "<title>Protocol" in page.source and 'src="dot.png"' in page.source
    assert (site / "documents/docs" / "reference/dot.png").read_bytes() == b"\x89PNG"
    links = [of["href"] for tag, of in page.tags if tag == "a" and "href" in of]
    assert "../../README.html" in links and "https://x.org" in links and not any("a.py" in link for link in links)
    assert "code" in page.text and "<code>&lt;i&gt;</code>" in page.source and "&lt;script&gt;" in page.source
    assert page.source.count("scope=") == page.source.count('<th scope="col">') == 1  # the empty head cell is none
    rules = [of.get("id") for tag, of in Page(site / "documents/leaderboard/RULES.html").tags if tag == "h2"]
    assert rules == ["two-words", "two-words-1"]
    first = Page(site / "index.html")
    addresses = {of.get("href") for tag, of in first.tags if tag == "a"}
    assert {"documents/docs/README.html", "documents/docs/reference/protocol.html#3"} <= addresses
    assert not any("tracks.html" in (address or "") for address in addresses)  # there is no such document here
    assert "documents/" not in Page(build(entries, tmp_path / "bare", [tiny.path])).source


def test_the_board_can_be_had_as_numbers(site: Path, entries: Path, tiny: Split) -> None:
    held = tables.read_json_record(site / "board.json", BoardFile)
    with (site / "board.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(held.rows) == len(lines) == 12
    standing = {row.entry.id: row.standing for row in board(read_entries(entries), lambda _: tiny)}
    for row, line in zip(held.rows, lines, strict=True):
        assert (line["id"], line["edition"]) == (row.id, row.edition)
        assert line["gain"] == ("" if row.gain is None else str(row.gain))
        if row.edition != "pooled":
            at = standing[row.id]
            assert (row.gain, row.converted) == (at.conversion and at.conversion.gain, at.method_rate)
            assert (row.rank_best, row.rank_worst) == (at.rank or (None, None))
    assert not [line for line in lines if any(of.startswith(("=", "@")) for of in line.values())]


def test_an_entrys_page_gives_the_line_that_makes_it_again(site: Path, entries: Path, tiny: Split) -> None:
    page = Page(site / "entry/better-1x/index.html")
    found = re.search(r'<section id="reproduce">.*?<pre>(.*?)</pre>', page.source, re.DOTALL)
    assert found
    words = shlex.split(found[1])
    assert words[:2] == ["unlearnbench", "eval"]
    with evaluate.make_context("eval", words[2:]) as context:
        given = context.params
    result = tables.read_json_record(entries / "better-1x" / "1" / "result.json", Result)
    assert given["method"] == "leaderboard/entries/better-1x/method.py"
    assert (given["split"], given["seeds"], given["samples"], given["budget"]) == ("tiny", 3, 32, 1.0)
    # All that differs from the split's recipe, whose kl is 1e-4.
    assert tiny.config.recipe.kl == 1e-4
    assert parse_changes(given["changes"]) == dict(result.method.settings)
    for name in ("standing", "groups", "items", "training", "fates", "twins", "checks", "cost", "reproduce", "files"):
        assert f'<section id="{name}">' in page.source
    assert (site / "entry/better-1x/result.json").read_bytes() == (entries / "better-1x/1/result.json").read_bytes()


def test_an_entrys_curves_are_those_of_its_training(site: Path) -> None:
    drawn = re.search(
        r'aria-label="(Correct rollouts in training[^"]*)"', Page(site / "entry/better-1x/index.html").source
    )
    # 20 steps are ten windows of two: 10 and 11 of 40 correct in the first, 28 and 29 in the last
    assert drawn and "unlearnable: 26 % in the first 2 steps, 71 % in the last" in drawn[1]
    assert "No curves" in Page(site / "entry/told-1x/index.html").text


def test_an_entrys_page_says_where_its_bundle_lies(site: Path) -> None:
    page = Page(site / "entry/better-1x/index.html")
    assert re.search(r"mine\.zip, 5\D587\D117 bytes; https://example\.org/mine\.zip", page.text)
    assert "https://example.org/mine.zip" in [of.get("href") for tag, of in page.tags if tag == "a"]


def test_a_built_in_method_and_seeds_of_its_own_are_said_so(site: Path) -> None:
    page = Page(site / "entry/silent-4x/index.html")
    assert "unlearnbench eval --method grpo --split tiny --seeds 3 --samples 32 --budget 4x" in page.text
    assert "Seeds of this entry: 7, 8, 9." in page.text
    assert "No rank: it does not state how many configurations were tried." in page.text
    assert "fates.parquet" not in "".join(of.get("href", "") for _, of in page.tags)


def test_a_split_that_is_not_built_says_how_to_build_it(site: Path) -> None:
    text = Page(site / "split/qwen2.5-0.5b-math-easy/index.html").text
    assert "unlearnbench splits build qwen2.5-0.5b-math-easy" in text


def test_examples_are_judged_and_counted_as_the_labels_were(site: Path, micro: Split) -> None:
    facts = SplitFacts(micro)
    counts = micro.counts()
    of_base = counts.filter(pc.is_in(counts["phase"], pc.cast(["base", "base_fresh"], "string")))
    assert set(facts.examples) == {"easy", "learnable", "unlearnable", "no_reward", "unstable"}
    for group, found in facts.examples.items():
        for example in found:
            assert example.item.group == group
            rows = of_base.filter(pc.equal(of_base["item_id"], example.item.item_id))
            assert example.rollouts == pc.sum(rows["n"]).as_py()
            assert example.correct == pc.sum(rows["correct"]).as_py()
            assert f"{example.correct} of {example.rollouts} rollouts" in Page(site / "split/micro/index.html").text


def test_what_luck_gives_by_each_rule_is_counted_by_hand(micro: Split) -> None:
    control = micro.control("null_control")
    assert control is not None
    ids, probes = micro.ids("unlearnable"), probes_of(micro)
    cells = {(row["phase"], row["item_id"], row["run"]): row["correct"] for row in control.counts.to_pylist()}
    above = solved = converted = 0
    for item in ids:
        for run in range(1, 11):
            hits = cells["eval", item, str(run)]
            above += hits > 3  # of 32: more than 10 %
            solved += hits >= 8
            converted += hits >= 8 and item in probes and cells["twin", probes[item], str(run)] >= 8
    pairs = 10 * len(ids)
    told = SplitFacts(micro).luck
    assert [name for name, _ in told] == ["above 10.0\u202f%", "solved", "converted"]
    assert [share for _, share in told] == pytest.approx([above / pairs, solved / pairs, converted / pairs])


def test_a_splits_controls_are_means_over_their_seeds(micro: Split, site: Path) -> None:
    rows = {row.name: row for row in SplitFacts(micro).controls}
    positive = rows["positive control"]
    assert positive.converted is not None and positive.solved is not None and positive.converted < positive.solved
    null = rows["null control"]
    assert (null.seeds, null.converted) == (10, dict(SplitFacts(micro).luck)["converted"])
    budgets = {path.name for path in (micro.path / "null_control").iterdir()} - {"1x"}
    assert set(rows) >= {"positive control", *(f"null control, {name} budget" for name in budgets)}
    tuned = [name for name in rows if name.startswith("tuned null")]
    assert len(tuned) == len(micro.tuned_nulls())
    assert all(name in Page(site / "split/micro/index.html").text for name in rows)


# --- hostile text, stale pages, bad input --------------------------------------------------------------------------


def test_hostile_names_prompts_and_sources_stay_text(site: Path) -> None:
    for path in pages(site):
        page = Page(path)
        scripts = [of for tag, of in page.tags if tag == "script"]
        wanted = ["report.js", ""] if path.parent.parent.name == "entry" else ["site.js"]
        assert [of.get("src", "").split("/")[-1] for of in scripts] == wanted, path
        assert all("src" in of or of.get("type") == "application/json" for of in scripts), path  # data is not run
        assert not [tag for tag, _ in page.tags if tag in ("img", "iframe", "object", "base")], path
        assert not [name for _, of in page.tags for name in of if name.startswith("on")], path
        assert not [of for _, of in page.tags if of.get("href", "").lower().startswith("javascript")], path
        assert "default-src 'none'" in page.source and "\u202e" not in page.source
    assert '<script>alert("x")</script>' in Page(site / "entry/hostile-1x/index.html").text
    assert "alert(1)" in Page(site / "entry/hostile-1x/index.html").text  # of the source, as text


def test_building_again_changes_nothing_and_takes_away_what_is_gone(
    site: Path, entries: Path, tiny: Split, tmp_path: Path
) -> None:
    few, out = tmp_path / "entries", tmp_path / "site"
    for name in ("told-1x", "nothing-1x"):
        shutil.copytree(entries / name, few / name)
    build(few, out, [tiny.path])
    same = ("entry/told-1x/index.html", "split/micro/index.html", "phenomenon.html", "site.css", "site.js")
    assert [(out / name).read_bytes() for name in same] == [(site / name).read_bytes() for name in same]
    (out / "entry/nothing-1x/notes.txt").write_text("mine", encoding="utf-8")
    shutil.copytree(out / "entry/nothing-1x", out / "entry/older-1x")
    (out / "entry/older-1x/notes.txt").unlink()
    shutil.rmtree(few / "nothing-1x")
    given = ["--entries", str(few), "--out", str(out), "--split", str(tiny.path)]
    done = CliRunner().invoke(command, given)
    assert done.exit_code == 0, done.exception
    assert done.output == f"{out / 'index.html'}\n"
    assert sorted(path.name for path in (out / "entry").iterdir()) == ["nothing-1x", "told-1x"]
    assert [path.name for path in (out / "entry/nothing-1x").iterdir()] == ["notes.txt"]


def test_a_foreign_split_and_a_link_out_of_the_folder_are_refused(entries: Path, tiny: Split, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="--split"):
        build(entries, tmp_path / "site")
    few = tmp_path / "entries"
    shutil.copytree(entries / "better-1x", few / "better-1x")
    (few / "better-1x" / "1" / "fates.parquet").unlink()
    (few / "better-1x" / "1" / "fates.parquet").symlink_to(find_split("micro") / "items.parquet")
    with pytest.raises(DataError, match=r"better-1x.*fates\.parquet.*not a plain file"):
        build(few, tmp_path / "site", [tiny.path])


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    found = CliRunner().invoke(command, ["--entries", str(tmp_path / "none"), "--out", str(tmp_path / "site")])
    assert found.exit_code == 1 and "there is no folder" in str(found.exception)
    assert not (tmp_path / "site").exists()
