"""`unlearnbench splits build/export/push`: splits made here, and splits for others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unlearnbench.splits import Split
    from unlearnbench.splits.manifest import Built

named = click.option(
    "--split", "names", multiple=True, metavar="S", help="A split to include [default: all that ship whole]."
)


@click.command()
@click.argument("split")
@click.option("--source", type=click.Path(path_type=Path), help="Folder laid out like the Hub's data set, or its file.")
@click.option("--artifacts", metavar="DIR", help="Folder (or address) of the released files; fetched by default.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write [default: where it is found by name].")
@click.option("--json", "as_json", is_flag=True, help="Print what the checks found as JSON.")
def build(split: str, source: Path | None, artifacts: str | None, out: Path | None, as_json: bool) -> None:
    """Make what a split is shipped without: its problem texts, fetched and joined by id, or its base policy."""
    from unlearnbench.curation.build import build as run
    from unlearnbench.splits.manifest import packaged_of, released_of
    from unlearnbench.splits.split import shipped_folder

    folder = shipped_folder(split)
    if (packaged := packaged_of(folder)) is not None:
        if source is not None or artifacts is not None:
            raise click.UsageError(f"{folder.name} lacks only its policy, which is in the package {packaged.package}.")
        from unlearnbench.curation.policy_from_gguf import furnish

        furnished = furnish(folder, packaged, out, _show)
        told_of = {"path": str(furnished.path), "items": len(furnished.items), "policy": packaged.weights}
        policy = f"{furnished.name}: {len(furnished.items)} items and their base policy in {furnished.path}"
        click.echo(json.dumps(told_of, indent=2) if as_json else f"{policy} (from {packaged.package}, hash right)")
        return
    made, found = run(split, source=source, artifacts=artifacts, out=out, progress=_show)
    released = released_of(made.path)
    log = released.release.rewards if released and released.release else None
    if log is not None and not found.rewards:
        click.echo(
            f"without {log.name}, the rewards of a released training run: it was in no folder named here; leave "
            "--artifacts out to fetch it, or put it beside the source data",
            err=True,
        )
    if as_json:
        click.echo(json.dumps({"path": str(made.path), **found.model_dump(mode="json")}, indent=2))
        return
    click.echo("\n".join(told(made, found)))


def _show(stage: str) -> None:
    if sys.stderr.isatty():
        click.echo(f"{stage} ...", err=True)


def told(made: Split, found: Built) -> list[str]:
    """What a build found, a sentence a line."""
    labels = ", ".join(f"{count:,} {group}" for group, count in found.labelled.items()) or "none labelled"
    lines = [f"{made.name}: {found.items:,} items ({labels}) in {made.path}"]
    if found.matched is not None:
        share = f"{100 * found.matched:.1f} % of the labelled items are liker to their own generated problems"
        lines.append(f"{share} than nine tenths of the pool are (a wrong file gives about 10 %).")
    if found.resolved or found.unresolved:
        positions = len(found.resolved) + len(found.unresolved)
        lines.append(f"{len(found.resolved)} of {positions} positions resolved by text; the others have no item.")
    if found.similar or found.sub_problems:
        lines.append(
            f"{found.similar:,} similar problems ({found.similar_leaked:,} repeat an item), {found.sub_problems:,} "
            f"sub-problems ({found.sub_problems_leaked:,}); {found.left_out:,} left out, without an item."
        )
    if found.rewards:
        lines.append("The rewards of a released training run are in it: `splits show` prints them by group.")
    if found.doubtful:
        lines.append(f"doubtful: {', '.join(found.doubtful[:20])}{' ...' if len(found.doubtful) > 20 else ''}")
    return lines


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@named
def export(directory: Path, names: tuple[str, ...]) -> None:
    """Write splits as a folder laid out for the Hub, with its dataset card."""
    from unlearnbench.curation.publish import export_splits

    click.echo(f"{', '.join(export_splits(directory, names))} in {directory}")


@click.command()
@click.argument("repository", metavar="REPO")
@named
@click.option("--private", is_flag=True, help="Make a new repository private.")
def push(repository: str, names: tuple[str, ...], private: bool) -> None:
    """Upload splits to a dataset repository of the Hub (OWNER/NAME)."""
    from unlearnbench.curation.publish import push_splits

    click.echo(push_splits(repository, names, private=private))
