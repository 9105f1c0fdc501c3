"""The documents: every block runs or says why not, every command line parses, links lead somewhere, what follows from
the code is current. The slow blocks run in .ci/documents.py."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import documents as page_runner
import pytest
import yaml
from documents import ROOT, Block, blocks, documents, run_blocks
from markdown_it import MarkdownIt

from unlearnbench.cli.main import cli
from unlearnbench.io import files, tables
from unlearnbench.records import Result
from unlearnbench.scoring.comparisons.comparison import compare
from unlearnbench.scoring.counts import Cells, read_phase
from unlearnbench.splits import Split, find_split, load_split

pytestmark = pytest.mark.checkout
SCHEMAS = ROOT / "unlearnbench/schemas"
ALL = [block for path in documents() for block in blocks(path)]
FAST = {path: [b for b in blocks(path) if b.mark != "slow"] for path in documents()}


def reference() -> Any:
    """.ci/reference.py as a module."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci/reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- blocks ---------------------------------------------------------------------------------------------------


def test_every_block_is_run_or_says_why_not() -> None:
    assert [block.wrong for block in ALL if block.wrong] == []
    assert sum(block.runs for block in ALL) > 40
    assert sum(block.mark == "not run" for block in ALL) < 12, "run more of them"


@pytest.mark.parametrize(
    "path", [path for path, found in FAST.items() if any(b.runs for b in found)], ids=lambda p: p.stem
)
def test_the_quick_blocks_of_a_document_run(path: Path, tmp_path: Path) -> None:
    assert list(run_blocks(FAST[path], tmp_path / "checkout"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```\nls\n```", "not ''"),
        ("```sh\nls\n```", "not 'sh'"),
        ("<!-- not run -->\n```bash\nls\n```", "needs a reason"),
        ("<!-- slow: why -->\n```bash\nls\n```", "neither"),
        ("<!-- slow -->\n```text\nls\n```", "not run, slow or not"),
        ("```yaml\na: 1\n```", "mark it"),
        ("<!-- file: result -->\n```python\n1\n```", "not python"),
        ("<!-- perhaps -->\n```bash\nls\n```", None),
        ("<!-- not run: no GPU -->\n```bash\nls\n```", None),
    ],
)
def test_a_block_that_nobody_knows_what_to_do_with_is_found(text: str, told: str | None, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)
    [block] = blocks(tmp_path / "page.md")
    assert (told in str(block.wrong)) if told else block.wrong is None


def test_what_a_reader_left_at_the_root_of_the_checkout_is_in_no_blocks_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    for name in ("pages/page.md", "my-pool/split.yaml"):
        files.write_text(root / name, "")
    monkeypatch.setattr(page_runner, "ROOT", root)
    for words in (["init", "-q"], ["add", "pages"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    page_runner.lay_out(tmp_path / "checkout")
    assert sorted(path.name for path in (tmp_path / "checkout").iterdir()) == [".venv", "pages"]


def test_a_block_that_fails_is_told_with_its_place_and_words(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```bash\ntrue | false | true\n```\n")
    with pytest.raises(RuntimeError, match=r"page\.md:1 ended with 1"):
        list(run_blocks(blocks(tmp_path / "page.md"), tmp_path / "one"))
    (tmp_path / "page.md").write_text(
        "# x\n```python\n# a.py\nA = 1\n```\n```python\nfrom a import A\nassert A == 2\n```\n"
    )
    with pytest.raises(RuntimeError, match="AssertionError"):
        list(run_blocks(blocks(tmp_path / "page.md"), tmp_path / "two"))
    (tmp_path / "page.md").write_text("```python\n# docs/a.py\n```\n")
    with pytest.raises(ValueError, match="into the checkout"):
        list(run_blocks(blocks(tmp_path / "page.md"), tmp_path / "three"))
    (tmp_path / "page.md").write_text("```python\n")
    with pytest.raises(ValueError, match="never closed"):
        blocks(tmp_path / "page.md")


# --- command lines --------------------------------------------------------------------------------------------


def commands(block: Block) -> list[list[str]]:
    """The unlearnbench command lines of a block, as words."""
    lines = block.text.replace("\\\n", " ").split("\n")
    told = [line for line in lines if re.match(r"\s*(\.venv/bin/)?unlearnbench ", line) and "..." not in line]
    return [shlex.split(line, comments=True)[1:] for line in told]


def parse(words: list[str]) -> str | None:
    """What is wrong with a command line; None if its command, options and arguments exist."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            return f"no command {words[0]!r}"
        command, words = found, words[1:]
    try:
        command.make_context("unlearnbench", list(words), resilient_parsing=False)
    except (click.NoSuchOption, click.MissingParameter, click.BadOptionUsage, click.BadParameter) as error:
        return error.format_message()
    except click.UsageError as error:
        return error.format_message() if "unexpected extra" in str(error) else None
    return None


def test_every_command_line_exists_also_those_that_are_not_run() -> None:
    checked = [
        (block.where, words, parse(words)) for block in ALL for words in commands(block) if "[" not in str(words)[1:]
    ]
    assert len(checked) > 40
    assert [found for found in checked if found[2]] == []
    assert parse(["eval", "--methodd", "grpo"]) and parse(["evall"]) and parse(["splits", "shown"])


# --- examples of files ----------------------------------------------------------------------------------------


def faults(name: str, found: object) -> list[str]:
    """What the schema of that name has against a file's content."""
    from jsonschema import Draft202012Validator

    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator.check_schema(schema)
    return [f"{fault.json_path}: {fault.message}" for fault in Draft202012Validator(schema).iter_errors(found)]


@pytest.mark.parametrize("block", [block for block in ALL if block.mark == "file"], ids=lambda block: block.where)
def test_an_example_of_a_file_is_one(block: Block) -> None:
    lines = block.text.splitlines() if block.language == "jsonl" else [block.text]
    for line in lines:
        assert faults(block.reason, yaml.safe_load(line) if block.language == "yaml" else json.loads(line)) == []


def test_the_shipped_files_are_what_the_schemas_describe() -> None:
    entry = ROOT / "leaderboard/entries/dapo-1x/open/result.json"
    for path in (entry, *find_split("micro").glob("**/result.json")):
        assert faults("result", json.loads(path.read_text())) == []
    for path in (ROOT / "leaderboard/entries").glob("*/*/entry.json"):
        assert faults("entry", json.loads(path.read_text())) == []
    for path in (ROOT / "splits").glob("*/split.yaml"):
        assert faults("split", yaml.safe_load(path.read_text())) == []
    micro = find_split("micro")
    for name, table in (("item", "items"), ("twin", "twins"), ("related_problem", "similar")):
        for row in tables.read_parquet(micro / f"{table}.parquet").slice(0, 5).to_pylist():
            assert faults(name, row) == []
    for row in json.loads((micro / "canaries.json").read_text()):
        assert faults("canary", row) == []
    entries = [ROOT / "leaderboard/entries" / name / "open" for name in ("dapo-1x", "replay-1x")]
    assert (
        faults("comparison", compare(entries, load_split(ROOT / "leaderboard/editions/open")).model_dump(mode="json"))
        == []
    )


def test_a_schema_refuses_what_is_not_such_a_file() -> None:
    told = json.loads((find_split("micro") / "positive_control/result.json").read_text())
    for wrong in ({"seeds": "1"}, {"kind": "other"}, {"surprise": 1}, {"schema_version": 3}):
        assert len(faults("result", told | wrong)) == 1


# --- pages ----------------------------------------------------------------------------------------------------


def test_what_follows_from_the_code_is_current() -> None:
    stale = [path.name for path in reference().stale()]
    assert stale == [], "run python .ci/reference.py"


def _prose(path: Path) -> str:
    """The text of a page without its blocks, or of a notebook's markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell["source"] for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        return "\n\n".join("".join(source) for source in cells)
    return re.sub(r"^(\s*)```.*?^\1```$", "", text, flags=re.DOTALL | re.MULTILINE)


def _anchors(path: Path) -> set[str]:
    """The anchors of a page: those of its headings, as GitHub makes them, and those that it sets itself."""
    text, found = _prose(path), set[str]()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(next(one for one in (name, *(f"{name}-{number}" for number in range(1, 99))) if one not in found))
    return found | set(re.findall(r'<a id="([^"]+)"></a>', text))


def _dead_links(path: Path) -> list[str]:
    """Links of a page to a file, or to an anchor of a page, that is not there."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", _prose(path)):
        target, _, anchor = link.partition("#")
        if "://" in link:
            continue
        there = (path.parent / target).resolve() if target else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in _anchors(there)):
            dead.append(link)
    return dead


def test_every_picture_of_the_documents_is_made_by_a_script() -> None:
    scripts = [*(ROOT / ".ci").glob("*.py"), *(ROOT / "experiments").glob("*.py")]
    written = "".join(path.read_text(encoding="utf-8") for path in scripts)
    shown = {Path(link).name for path in documents() for link in re.findall(r"!\[[^]]*\]\(([^)\s]+)\)", _prose(path))}
    there = {path.name for path in (ROOT / "docs").rglob("*.png")}
    assert shown == there and shown, "a picture that no page shows, or that is not there"
    assert sorted(name for name in shown if name not in written) == []


def test_no_placeholder_is_taken_for_a_tag() -> None:
    """`<id>` in plain text is HTML, so that no reader sees it."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table")
    found = []
    for path in [*documents(), ROOT / "leaderboard/RULES.md"]:
        tokens = parser.parse(path.read_text(encoding="utf-8"))
        inline = [child for token in tokens for child in token.children or ()]
        html = [token.content.strip() for token in (*tokens, *inline) if token.type in ("html_block", "html_inline")]
        found += [(path.name, text) for text in html if not text.startswith(("<!--", "<a id=", "</a>"))]
    assert found == []


def test_the_table_of_the_readme_is_that_of_the_shipped_runs() -> None:
    """Shares of the unlearnable items by three rules, from the controls of micro and the board's entries on it."""
    micro = load_split("micro")
    short, long = _null_rules(micro, "1x"), _null_rules(micro, "4x")
    shown = {
        name.strip(" `"): [float(cell.strip("% ")) for cell in cells]
        for name, *cells in re.findall(
            r"^\| (.+?) \| ([\d.]+ %) \| ([\d.]+ %) \| ([\d.]+ %) \|$",
            (ROOT / "README.md").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    }
    ceiling = tables.read_json_record(micro.path / "positive_control/result.json", Result)
    rows = {"ceiling": _three_rules(ceiling), "GRPO re-run": short, "GRPO for four times": long}
    for name, wanted in rows.items():
        [found] = [values for title, values in shown.items() if name in title]
        assert found == [round(100 * value, 1) for value in wanted], name
    # of runs that are not kept here, their page has the gains over the same null control
    told = (ROOT / "docs/results/experiments.md").read_text(encoding="utf-8").replace("\N{MINUS SIGN}", "-")
    for name in ("pass_at_k", "sft_unlearnable"):
        gains = re.search(rf"^\| {name} \| 3 \| ([+-][\d.]+) \(.*?\) \| ([+-][\d.]+) \(", told, re.MULTILINE)
        [found] = [values for title, values in shown.items() if name in title]
        assert gains is not None
        for share, gain, of_null in zip(found[1:], gains.groups(), short[1:], strict=True):
            assert share == pytest.approx(float(gain) + 100 * of_null, abs=0.11)
    told = (ROOT / "docs/results/micro.md").read_text(encoding="utf-8")
    assert all(" | ".join(f"{value:.1f} %" for value in values) in told for values in shown.values())


def _null_rules(micro: Split, multiple: str) -> tuple[float, float, float]:
    """Of a null control; in the first place the mean over all choices of three of its seeds."""
    null = micro.control("null_control", multiple)
    assert null is not None and null.result is not None
    runs = [str(seed) for seed in null.seeds]
    cells = Cells.of(read_phase(null.counts, "eval", micro.ids("unlearnable"), runs=runs))
    above = cells.correct / cells.n > micro.config.protocol.tau
    triples = [above[:, list(seeds)].any(axis=1).mean() for seeds in itertools.combinations(range(len(runs)), 3)]
    return (float(sum(triples)) / len(triples), *_three_rules(null.result)[1:])


def _three_rules(result: Result) -> tuple[float, float, float]:
    of, naive = result.groups["unlearnable"], result.conversion.naive.any_seed
    assert naive is not None and of.solved is not None and of.conversion is not None
    return naive, of.solved / of.items, of.conversion


LINKED = [*documents(), *sorted((ROOT / "docs").rglob("*.ipynb"))]


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    assert _dead_links(path) == []


def test_a_link_to_no_file_and_to_no_anchor_is_found(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    files.write_text(other, '# One Word\n\n## Twice\n\n## Twice\n\n<a id="3.3"></a>\n```text\n# no heading\n```\n')
    good = "[a](other.md) [b](other.md#one-word) [c](other.md#twice-1) [d](other.md#3.3) [e](https://x.org/y.md#z)"
    files.write_text(page, f"# Page\n{good} [f](#page)\n```text\n[g](none.md)\n```\n")
    assert _dead_links(page) == []
    files.write_text(page, "[a](none.md) [b](other.md#3.4) [c](other.md#no-heading) [d](#page)\n")
    assert _dead_links(page) == ["none.md", "other.md#3.4", "other.md#no-heading", "#page"]


CITED = re.compile(r"\bPROTOCOL (\d+(?:\.\d+)?(?:(?:, | and )\d+(?:\.\d+)?\b)*)")
"""A citation of sections of the protocol: "PROTOCOL 3.3", "PROTOCOL 3.4 and 3.5"."""


def _citations(text: str) -> set[str]:
    found = [number for group in CITED.findall(text) for number in re.findall(r"\d+(?:\.\d+)?", group)]
    return {*found, *re.findall(r'call definition\("[^"]+", "([^"]+)"\)', text)}


def test_the_protocol_has_every_section_that_is_cited() -> None:
    # `definition` is the macro of a run's page that writes PROTOCOL and the number.
    assert _citations("PROTOCOL 3.4 and 3.5: x. (PROTOCOL 2)") == {"3.4", "3.5", "2"}
    anchors = _anchors(ROOT / "docs/reference/protocol.md")
    read = [*documents(), *(path for path in (ROOT / "unlearnbench").rglob("*") if path.suffix in (".py", ".html"))]
    for folder in ("tests", "recipes", "experiments", "benchmarks", ".ci"):
        read += (ROOT / folder).rglob("*.py")
    cited = {path: _citations(path.read_text(encoding="utf-8")) for path in read if path != Path(__file__)}
    assert sum(bool(numbers) for numbers in cited.values()) > 25
    assert {path.name: numbers - anchors for path, numbers in cited.items() if numbers - anchors} == {}


def test_no_text_names_a_page_that_is_not_there() -> None:
    # Code, recipes and CI cite pages by their path from the root of the checkout.
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    missing = set()
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if not path.is_file() or name.startswith("leaderboard/entries/") or path.suffix in (".parquet", ".png", ".zip"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        cited = re.findall(r"(?<![\w/.-])docs/[\w./-]+\.(?:md|png|ipynb)\b", text)
        missing |= {(name, page) for page in cited if not (ROOT / page).is_file()}
    assert sorted(missing) == []


def test_the_index_names_every_page() -> None:
    text = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    docs = ROOT / "docs"
    pages = [path.relative_to(docs).as_posix() for path in docs.rglob("*") if path.suffix in (".md", ".ipynb")]
    assert [name for name in pages if f"]({name}" not in text and name != "README.md"] == []
    assert "docs/README.md" in (ROOT / "README.md").read_text(encoding="utf-8")


# --- the notebook ---------------------------------------------------------------------------------------------


def test_the_notebook_was_run_in_order_and_ended_well() -> None:
    book = json.loads((ROOT / "docs/guide/first-hour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds and sum("image/png" in str(cell["outputs"]) for cell in cells) >= 1
    assert sum("text/html" in str(cell["outputs"]) for cell in cells) >= 3  # results show themselves
    for cell in cells:
        compile("".join(line for line in cell["source"] if line[:2] != "%%"), "first-hour.ipynb", "exec")
