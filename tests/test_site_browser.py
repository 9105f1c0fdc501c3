"""The leaderboard's pages in a browser: sorting, filters, pictures and comparisons."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_site import Page, board_of
from chromium import DESK, PHONE, Browser, binary, dead_links, findings
from made_run import make_split

from unlearnbench.leaderboard.site.build import build
from unlearnbench.splits import Split

needs_browser = pytest.mark.skipif(binary() is None, reason="no Chromium on this machine")


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


# --- in a browser -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def shown(browser: Browser) -> list[str]:
    """Ids of the entries that are to be seen, in their order."""
    rows = "[...document.querySelectorAll('#entries tbody.rows tr')].filter((row) => row.checkVisibility())"
    links: list[str] = browser.run(f"{rows}.map((row) => row.querySelector('a').getAttribute('href'))")
    return [link.split("/")[1] for link in links]


def choose(browser: Browser, name: str, value: str) -> None:
    form = "document.getElementById('filters')"
    event = "new Event('input', { bubbles: true })"
    browser.run(f"{form}.elements['{name}'].value = {json.dumps(value)}; {form}.dispatchEvent({event})")


def sorts(browser: Browser) -> list[str]:
    return list(browser.run("[...document.querySelectorAll('#entries thead th')].map((head) => head.ariaSort)"))


@needs_browser
def test_the_board_sorts_and_filters(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    assert browser.errors == []
    assert shown(browser) == [
        "better-1x",
        "hostile-1x",
        "nothing-1x",
        "gone-1x",
        "silent-4x",
    ]  # the default view: re-trained
    gain = "document.querySelectorAll('#entries thead button')[4]"
    browser.run(f"{gain}.click()")
    assert shown(browser) == ["better-1x", "gone-1x", "silent-4x", "hostile-1x", "nothing-1x"]
    assert sorts(browser)[4] == "descending" and sorts(browser).count("none") == len(sorts(browser)) - 1
    browser.run(f"{gain}.focus()")
    browser.press("Enter", 13, "\r")
    assert shown(browser)[0] == "nothing-1x" and sorts(browser)[4] == "ascending"
    choose(browser, "tier", "self-reported")
    assert shown(browser) == ["told-1x"]
    assert browser.run("document.querySelector('output').textContent") == "1 of 12 rows"
    choose(browser, "tier", "")
    choose(browser, "budget", "4x")
    assert shown(browser) == ["silent-4x"]
    choose(browser, "budget", "")
    choose(browser, "name", "NOTH")
    assert shown(browser) == ["nothing-1x"]
    browser.open(site / "index.html", browser.run("location.hash"))  # the address remembers both
    assert shown(browser) == ["nothing-1x"] and sorts(browser)[4] == "ascending"
    choose(browser, "name", "no such")
    assert shown(browser) == [] and browser.run("document.getElementById('nothing').checkVisibility()")
    browser.run("document.querySelector('#nothing button').click()")
    assert len(shown(browser)) == 12


def marks(browser: Browser) -> dict[str, tuple[float, float]]:
    """Where the picture has the mark of each entry, by the start of its title."""
    script = """[...document.querySelectorAll('#hero .entry')].map((group) => {
        const box = group.querySelector('circle, rect, path').getBBox();
        const name = group.querySelector('title').textContent.split(':')[0];
        return [name, [box.x + box.width / 2, box.y + box.height / 2]];
    })"""
    return {name: tuple(place) for name, place in browser.run(script)}


def press(browser: Browser, text: str) -> None:
    """Click the tab with that text."""
    browser.run(
        f"[...document.querySelectorAll('.tabs label')].find((tab) => tab.textContent === {text!r})"
        ".querySelector('input').click()"
    )


@needs_browser
def test_the_picture_has_a_mark_where_the_gain_is_and_follows_the_filters(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html")
    places = marks(browser)
    assert len(places) == 5  # of the re-trained tier, pooled
    heights = {name.split(",")[0]: place[1] for name, place in places.items()}
    ticks = browser.run(
        "[...document.querySelectorAll('#hero text[text-anchor=end]')].map((tick) =>"
        " [tick.textContent, Number(tick.getAttribute('y')) - 4])"
    )
    at = dict(ticks)
    unit = (at["0"] - at["+25"]) / 25**0.5  # a root scale
    assert heights["better-1x"] == pytest.approx(at["0"] - unit * 60**0.5, abs=0.1)
    assert heights["nothing-1x"] == pytest.approx(at["0"] - unit * 1, abs=0.1)
    claims = browser.run("document.querySelectorAll('#hero .entry circle.claim').length")
    assert claims == len(re.findall(r'data-edition="pooled"[^>]* data-claim', Page(site / "index.html").source))
    press(browser, "Easy lost")
    assert "Easy problems lost" in browser.run("document.querySelector('#hero .canvas').textContent")
    press(browser, "Gain against FLOPs")
    assert len(marks(browser)) == 5
    choose(browser, "name", "better")
    assert [name.split(",")[0] for name in marks(browser)] == ["better-1x"]
    address = browser.run("location.hash")
    browser.open(site / "index.html", address)
    assert browser.run("document.querySelector('[name=picture]:checked').value") == "flops"
    assert browser.run("document.querySelector('#hero svg[role=img]').ariaLabel").endswith(
        "beat both nulls, first better-1x +60.0."
    )


@needs_browser
def test_the_tab_with_the_most_columns_fits_a_desk(browser: Browser, site: Path) -> None:
    browser.open(site / "index.html", "#track=all&unfolded=yes", DESK)
    around = "document.getElementById('entries').closest('.scroll')"
    assert browser.run(f"{around}.scrollWidth <= {around}.clientWidth")
    controls = "[...document.querySelectorAll('#entries tbody.controls tr')].filter((row) => row.checkVisibility())"
    assert set(browser.run(f"{controls}.map((row) => row.dataset.edition)")) == {"pooled"}


@needs_browser
def test_two_rows_side_by_side_and_rows_that_convert_nothing(browser: Browser, site: Path, tmp_path: Path) -> None:
    browser.open(site / "index.html")
    for name in ("gone-1x", "better-1x", "nothing-1x"):  # a third takes the place of the first
        row = f"tbody.rows tr[data-id={json.dumps(name)}][data-edition=pooled]"
        browser.run(f"document.querySelector('{row} .pick input').click()")
    heads = "[...document.querySelectorAll('#pair thead a')].map((of) => of.textContent)"
    assert browser.run(heads) == ["better-1x", "nothing-1x"]
    text = browser.run("document.getElementById('pair').textContent")
    assert text.startswith("Neither converts significantly more") and "No gain over GRPO detected" in text
    browser.open(site / "index.html", browser.run("location.hash"))
    assert browser.run(heads) == ["better-1x", "nothing-1x"]
    browser.run("document.querySelector('#pair > button').click()")
    assert not browser.run("document.getElementById('pair').checkVisibility()")
    # As if one had converted nothing: it is folded, and one click away.
    source = (site / "index.html").read_text(encoding="utf-8")
    page = tmp_path / "index.html"
    page.write_text(re.sub(r'(<tr data-key="nothing-1x@[^>]*)>', r"\1 data-nothing>", source), encoding="utf-8")
    for name in ("site.js", "site.css"):
        shutil.copy(site / name, tmp_path / name)
    browser.open(page)
    assert "nothing-1x" not in shown(browser) and len(shown(browser)) == 4
    button = "document.querySelector('#fold button')"
    assert browser.run(f"{button}.textContent") == "Show what converts nothing (1)"
    browser.run(f"{button}.click()")
    assert "nothing-1x" in shown(browser) and browser.run(f"{button}.ariaExpanded") == "true"


@needs_browser
@pytest.mark.parametrize(("size", "dark"), [(PHONE, False), (DESK, True)])
def test_nothing_is_wrong_with_the_pages_in_a_browser(
    browser: Browser, site: Path, size: tuple[int, int], dark: bool
) -> None:
    for name in ("index.html", "phenomenon.html", "entry/hostile-1x/index.html", "split/tiny/index.html"):
        assert findings(browser, site / name, site, size, dark) == [], name
    assert (
        dead_links(browser, site, [site / "index.html", site / "phenomenon.html", *site.glob("split/*/*.html")]) == []
    )


@needs_browser
def test_the_browser_finds_what_is_wrong(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(
        "<!doctype html><html><head><title>x</title></head><body><h1>x</h1><h3>y</h3><button></button>"
        '<p style="width: 600px">wide</p><p style="color: #bbb">faint</p><svg></svg><table><th>x</th></table>'
        '<a href="gone.html">a</a><a href="#nowhere">b</a><img src="http://127.0.0.1:9/x.png" alt="">'
        "<script>console.error('no'); nothing()</script></body></html>",
        encoding="utf-8",
    )
    found = " | ".join(findings(browser, page, tmp_path, PHONE))
    for word in ("console: ['no']", "ReferenceError", "overflow: 6", "without a name: <button>", "too faint"):
        assert word in found
    for word in ("svg says nothing", "th without scope", "skips a level", "no language", "asks for http://127.0.0.1:9"):
        assert word in found
    dead = dead_links(browser, tmp_path, [page])
    assert [line.split(", which ")[1] for line in dead] == ["is not there", "has no such place"]
