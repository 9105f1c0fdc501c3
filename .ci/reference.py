"""Pages that follow from the code: commands.md, verifier-rules.md, the modules in architecture.md; JSON schemas.

python .ci/reference.py            write what is not current
python .ci/reference.py --check    only tell; exit status 1 if anything is not current
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any

import click

from unlearnbench.cli.main import COMMANDS, cli
from unlearnbench.records import Record

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = {
    "result": ("records", "Result", "result.json of a run, a control or an entry"),
    "split": ("records", "SplitConfig", "split.yaml"),
    "item": ("records", "Item", "a row of items.parquet, or of an items.jsonl"),
    "twin": ("records", "Twin", "a row of twins.parquet"),
    "canary": ("records", "Canary", "an object of the list in canaries.json"),
    "related_problem": ("records", "RelatedProblem", "a row of similar.parquet or sub_problems.parquet"),
    "comparison": ("scoring.comparisons.comparison", "Comparison", "comparison.json, and what `compare --json` prints"),
    "similarity": ("diagnosis.record", "SimilarityRecord", "similarity.json of a diagnosis"),
    "entry": ("leaderboard.entries", "Entry", "entry.json of the leaderboard"),
    "bundle": ("leaderboard.bundles.address", "BundleRef", "bundle.json of an entry: which bundle, and where it lies"),
}
"""Of each schema: the module and the record that it follows from, and what it describes."""

HEAD = """\
# Commands

<!-- Written by .ci/reference.py from the command line itself; a test holds it to that. -->

`unlearnbench COMMAND --help` prints the same. Exit status: 0 done; 2 the command line is wrong; 1 everything else, with
one sentence that says what to do (`unlearnbench --debug COMMAND` adds the traceback). Results go to standard output,
progress to standard error, and only to a terminal. Where a command prints a table, `--json` prints it for programs.
"""


RULES_HEAD = """\
# What the verifier accepts

<!-- Written by .ci/reference.py from the cases in tests/verifier_kinds; a test holds it to that. -->

Each kind of gold answer has a rule, one answer that is accepted and one that is refused. Every line is a test. The
order of gold and answer never changes a verdict. To check your own golds: `unlearnbench splits validate DIR` names
those that only their own text can match, and `unlearnbench verify GOLD '\\boxed{ANSWER}'` judges one pair.
"""


def rules() -> str:
    """docs/reference/verifier-rules.md: a rule for each kind of answer, with the first accepted and refused case."""
    parts = [RULES_HEAD]
    for path in sorted((ROOT / "tests/verifier_kinds").glob("*.jsonl")):
        head, *cases = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        table = "| gold | answer | verdict |\n|---|---|---|"
        for correct, word in ((True, "accepted"), (False, "refused")):
            case = next(case for case in cases if case["correct"] is correct)
            answer = case["answer"] if "answer" in case else case["completion"].splitlines()[-1]
            table += f"\n| {_code(case['gold'])} | {_code(answer)} | {word} |"
        parts.append(f"## {head['title']}\n\n{head['rule']}\n\n{table}")
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def commands() -> str:
    """docs/reference/commands.md: every command with its options, in the order of `unlearnbench --help`."""
    context = click.Context(cli, info_name="unlearnbench")
    parts = [HEAD, "| command | does |\n|---|---|"]
    named = [(name, cli.get_command(context, name)) for name in COMMANDS]
    parts[-1] += "".join(f"\n| [`{name}`](#{_anchor(name)}) | {COMMANDS[name][2]} |" for name, _ in named)
    for name, command in named:
        assert command is not None
        parts += _command(command, f"unlearnbench {name}", 2)
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _anchor(name: str) -> str:
    return f"unlearnbench-{name}"


def _command(command: click.Command, path: str, level: int) -> list[str]:
    context = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or command.short_help or "").replace("\b\n", "")
    parts = [f"{'#' * level} {path}", f"```text\n{usage}\n```", text]
    options = [param for param in command.params if isinstance(param, click.Option) and not param.hidden]
    if options:
        parts.append("| option | does |\n|---|---|" + "".join(_option(option, context) for option in options))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            parts += _command(below, f"{path} {name}", level + 1)
    return [part for part in parts if part]


def _option(option: click.Option, context: click.Context) -> str:
    found = option.get_help_record(context)
    assert found is not None
    names, text = found
    return f"\n| `{_cell(names)}` | {_cell(text)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def architecture() -> str:
    """docs/reference/architecture.md with its list of modules, room by room in the order of the page's first table."""
    page = (ROOT / "docs/reference/architecture.md").read_text(encoding="utf-8")
    package = ROOT / "unlearnbench"
    parts = []
    for room in re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE):
        paths = sorted((package / room).rglob("*.py")) or [package / f"{room}.py"]
        lines = []
        for path in paths:
            name, told = path.relative_to(package).as_posix(), ast.get_docstring(ast.parse(path.read_text("utf-8")))
            sentence = re.split(r"(?<=\.)\s", " ".join((told or "").split("\n\n")[0].split()))[0]
            lines.append(f"- [`{name}`](../../unlearnbench/{name}): {sentence}")
        parts.append(f"### {room}\n\n" + "\n".join(lines))
    begin, end = re.split(r"(?<=-->)(?=\n)", page[: page.index("<!-- /modules -->")])[0], "<!-- /modules -->\n"
    return "\n\n".join([begin, *parts, end])


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a file, which names itself and says what it describes."""
    module, record, what = SCHEMAS[name]
    model: type[Record] = getattr(importlib.import_module(f"unlearnbench.{module}"), record)
    found = model.model_json_schema(mode="validation")
    found.pop("description", None)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": record, "description": f"{what}."}
    return head | _untitled(found)


def _untitled(part: Any) -> Any:
    """Without the titles that pydantic makes of the names of fields: they only repeat them."""
    if isinstance(part, list):
        return [_untitled(value) for value in part]
    if not isinstance(part, dict):
        return part
    return {key: _untitled(value) for key, value in part.items() if key != "title" or not isinstance(value, str)}


def written() -> dict[Path, str]:
    """Every file that follows from the code, with what it should hold."""
    files = {
        ROOT / "docs/reference/commands.md": commands(),
        ROOT / "docs/reference/architecture.md": architecture(),
        ROOT / "docs/reference/verifier-rules.md": rules(),
    }
    for name in SCHEMAS:
        text = json.dumps(schema(name), indent=1, ensure_ascii=False)
        files[ROOT / f"unlearnbench/schemas/{name}.json"] = text + "\n"
    return files


def stale() -> list[Path]:
    """Those that do not hold it, and schemas that no record has any more."""
    files = written()
    old = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    return old + sorted(set((ROOT / "unlearnbench/schemas").glob("*.json")) - set(files))


def main() -> int:
    """Write or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    found, files = stale(), written()
    for path in found:
        print(path.relative_to(ROOT))
    if parser.parse_args().check:
        return 1 if found else 0
    for path in found:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
