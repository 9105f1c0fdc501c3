"""`unlearnbench splits`: what splits there are, what is in one, and whether a folder is a valid one."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unlearnbench.splits import Split

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def splits(context: click.Context, as_json: bool) -> None:
    """List the shipped splits; show or validate one."""
    if context.invoked_subcommand is not None:
        return
    from unlearnbench.splits import load_split, shipped_splits

    rows = [_summary(load_split(name)) for name in shipped_splits()]
    if as_json:
        _print_json(rows)
    elif not rows:
        click.echo("No splits are shipped; `make micro` makes micro.")
    else:
        shown = ("unlearnable", "learnable", "easy")
        _print_table(
            ["split", "items", *shown, "base policy"],
            [
                [row["name"], row["items"], *(row["groups"][g]["items"] for g in shown), row["base_policy"]["path"]]
                for row in rows
            ],
        )


@splits.command()
@click.argument("split")
@as_json
def show(split: str, as_json: bool) -> None:
    """Show a split: its groups, families, protocol, recipe and controls. SPLIT is a shipped name or a folder."""
    from unlearnbench.splits import load_split

    content = _description(load_split(split))
    if as_json:
        _print_json(content)
        return
    click.echo(f"{content['name']}: {content['description']}".strip().rstrip(":"))
    sizes = ", ".join(f"{content[name]} {name}" for name in ("items", "twins", "canaries"))
    click.echo(f"{sizes} in {content['path']}")
    _print_table(
        ["group", "items", "certified", "thin"],
        [[group, of["items"], of["certified"], of["thin"]] for group, of in content["groups"].items()],
    )
    groups = list(content["groups"])
    _print_table(
        ["family", "items", *groups],
        [
            [family, of["items"], *(of["groups"].get(group, 0) for group in groups)]
            for family, of in content["families"].items()
        ],
    )
    for name in ("protocol", "recipe", "base_policy", "budget", "controls"):
        click.echo(f"{name}: {json.dumps(content[name], ensure_ascii=False)}")
    click.echo(f"labels: version {content['label_version']}, hash {content['hash']}")


@splits.command()
@click.argument("directory", metavar="DIR")
@as_json
def validate(directory: str, as_json: bool) -> None:
    """Check every file of a split against its hash, its schema and the others; exit 1 if anything is wrong."""
    from unlearnbench import audit
    from unlearnbench.splits import find_split

    problems = audit.validate(find_split(directory))
    if as_json:
        _print_json({"valid": not problems, "problems": problems})
    else:
        click.echo("\n".join(problems) or "valid")
    if problems:
        raise SystemExit(1)


def _summary(split: Split) -> dict[str, Any]:
    from unlearnbench.records import GROUPS

    groups = {}
    for group in GROUPS:
        items = [item for item in split.items if item.group == group]
        certified = sum(item.certified is True for item in items)
        groups[group] = {"items": len(items), "certified": certified, "thin": sum(item.thin for item in items)}
    return {
        "name": split.name,
        "description": split.config.description,
        "path": str(split.path),
        "items": len(split.items),
        "groups": groups,
        "base_policy": split.config.base_policy.model_dump(mode="json"),
        "label_version": split.config.label_version,
        "hash": split.hash,
    }


def _description(split: Split) -> dict[str, Any]:
    stated = split.config.model_dump(mode="json")
    families = {}
    for family in sorted(set(split.families().values())):
        items = [item for item in split.items if item.family == family]
        groups = Counter(item.group for item in items if item.group)
        families[family] = {"items": len(items), "groups": dict(sorted(groups.items()))}
    return _summary(split) | {
        "families": families,
        "twins": len(split.twins),
        "twin_kinds": dict(sorted(Counter(twin.kind for twin in split.twins).items())),
        "canaries": len(split.canaries),
        "protocol": stated["protocol"],
        "recipe": stated["recipe"],
        "budget": stated["budget"],
        "controls": _controls(split),
        "provenance": stated["provenance"],
        "licence": stated["licence"],
    }


def _controls(split: Split) -> dict[str, Any]:
    """Seeds and hash of each shipped control; the null control by budget multiple."""
    found: dict[str, Any] = {"null_control": {}, "strong_null": None, "positive_control": None}
    for folder in sorted((split.path / "null_control").glob("*/")):
        if control := split.control("null_control", folder.name):
            found["null_control"][folder.name] = {"seeds": list(control.seeds), "hash": control.hash}
    if control := split.control("strong_null"):
        found["strong_null"] = {"seeds": list(control.seeds), "hash": control.hash}
    if control := split.control("positive_control"):
        found["positive_control"] = {"seeds": list(control.seeds), "hash": control.hash}
    return found


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(head: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in head:
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # Text: names may hold rich's markup
    Console().print(table)
