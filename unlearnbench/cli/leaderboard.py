"""`unlearnbench leaderboard`: bundles verified and entered, editions closed and their entries trained again, entries
ranked and scored again, rules and pages written."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unlearnbench.cli.ray_option import ray_option
from unlearnbench.records import TRACKS
from unlearnbench.reports.formatting import p_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unlearnbench.leaderboard.board import Moved, Row
    from unlearnbench.leaderboard.retrain_edition import Outcome
    from unlearnbench.leaderboard.verification import Verification

ENTRIES = Path("leaderboard/entries")
_bundle = click.argument("bundle", metavar="BUNDLE")
_entries = click.option(
    "--entries", type=click.Path(path_type=Path), default=ENTRIES, show_default=True, help="Folder of the entries."
)
_split = click.option("--split", help="The split that was run on, if it is not a shipped one: its folder.")
_splits = click.option(
    "--split", "splits", multiple=True, metavar="DIR", help="A split that is neither shipped nor an edition's own."
)
_workers = click.option("--workers", type=click.IntRange(1), help="Processes at once [default: one per core].")


@click.group("leaderboard")
def leaderboard() -> None:
    """Verify bundles, and score, rank and show the leaderboard's entries."""


@leaderboard.command("verify")
@_bundle
@_split
@click.option("--rerun", is_flag=True, help="Train again from the bundle's source, without network, and compare.")
@click.option("--allow-network", is_flag=True, help="--rerun: where the system itself has no network namespaces.")
@ray_option
@_workers
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def verify(
    bundle: str,
    split: str | None,
    rerun: bool,
    allow_network: bool,
    ray: str | None,
    workers: int | None,
    as_json: bool,
) -> int:
    """Check a bundle, and measure its weights again. Its code is not run.

    BUNDLE is a zip file, its address (https://, http:// or hf://datasets/OWNER/NAME/FILE.zip), a bundle.json, or the
    folder of an entry; of an entry whose bundle is gone, its own files are checked. Prints `verified`, or the reasons
    why not (exit status 1). With --rerun its code is run, and may take hours.
    """
    if (allow_network or ray) and not rerun:
        raise click.UsageError("--allow-network and --ray are for --rerun; without it nothing is trained.")
    from unlearnbench.leaderboard.bundles.address import GoneError, fetched
    from unlearnbench.leaderboard.verification import examine, summed_up
    from unlearnbench.splits import load_split

    began = time.monotonic()
    try:
        with fetched(bundle) as found:
            reasons, checked = examine(found.path, None if split is None else load_split(split), workers=workers)
            told = summed_up(bundle, reasons, checked, time.monotonic() - began)
            if rerun and told.verified and checked is not None:
                from unlearnbench.leaderboard.verification.rerun import retrain

                told = retrain(checked, told, allow_network=allow_network, ray=ray)
    except GoneError as error:
        told = _without_bundle(Path(bundle), error, split, workers)
    click.echo(told.model_dump_json(indent=2) if as_json else told.words)
    return 0 if told.verified else 1


def _without_bundle(place: Path, error: Exception, split: str | None, workers: int | None) -> Verification:
    """What an entry shows by itself; raises `error` where `place` is not an entry."""
    from unlearnbench.leaderboard.editions import find_splits
    from unlearnbench.leaderboard.entries import read_entry
    from unlearnbench.leaderboard.kept_entry import shown_without_bundle

    folder = place if place.is_dir() else place.parent
    if not (folder / "entry.json").is_file():
        raise error
    find = find_splits(folder.parents[1], [] if split is None else [split])
    return shown_without_bundle(read_entry(folder), str(error), find, workers)


@leaderboard.command("fetch")
@_bundle
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where to write it (.zip).")
def fetch(bundle: str, out: Path) -> None:
    """Download a bundle, given its address, its bundle.json or its entry's folder, and check its hash."""
    from unlearnbench.io.files import atomic
    from unlearnbench.leaderboard.bundles.address import fetched

    with fetched(bundle) as found, found.path.open("rb") as source, atomic(out) as sink:
        shutil.copyfileobj(source, sink)
    click.echo(out)


@leaderboard.command("enter")
@_bundle
@_entries
@click.option("--id", "id_", metavar="ID", help="The entry's folder [default: the bundle's, or <method>-<budget>].")
@click.option(
    "--tier",
    type=click.Choice(["self-reported", "re-measured"]),
    default="re-measured",
    show_default=True,
    help="self-reported: its weights are not measured again. `leaderboard retrain` makes the re-trained entries.",
)
@click.option("--edition", help="The edition that it belongs to [default: the newest of its split].")
@_split
@_workers
def enter(
    bundle: str, entries: Path, id_: str | None, tier: str, edition: str | None, split: str | None, workers: int | None
) -> None:
    """Verify a bundle and write the entry that it makes, with everything that follows from it.

    BUNDLE is a zip file, its address, or a bundle.json, which a pull request brings.
    """
    from unlearnbench.leaderboard.entries import enter as run
    from unlearnbench.splits import load_split

    made = run(
        bundle,
        entries,
        id=id_,
        tier=tier,  # type: ignore[arg-type]
        edition=edition,
        split=None if split is None else load_split(split),
        workers=workers,
    )
    click.echo(f"{made.folder}: {made.entry.name}, {made.entry.tier}, edition {made.entry.edition}")
    click.echo(f"on the site: choose the tier {made.entry.tier}, or Show all; the re-trained tier is shown first")


@leaderboard.command("close")
@click.argument("name")
@click.option("--commit", help="The commit that closes it and contains all its entries [default: HEAD].")
@click.option("--beacon", metavar="ROUND:VALUE", help="The public beacon's value of the round that was printed.")
@_entries
@click.option("--split", help="Its sealed variant, once `make micro SEED=...` has made it: its folder.")
def close(name: str, commit: str | None, beacon: str | None, entries: Path, split: str | None) -> None:
    """Close the edition NAME: a commit fixes its entries, a later value of a public beacon draws its variant's seed.

    Without --beacon it prints the round to wait for; with --split it writes the edition into editions.json. A commit
    that does not contain every entry as it is now is refused. Each call prints the next one.
    """
    from unlearnbench.leaderboard.close_edition import close as run
    from unlearnbench.splits import load_split

    done = run(name, entries, commit, beacon, None if split is None else load_split(split))
    click.echo(f"edition {done.edition}, closed by commit {done.commit}: {done.entries} entries take part")
    again = f"unlearnbench leaderboard close {name} --commit {done.commit}"
    if done.seed is None:
        click.echo(f"push that commit, then read the randomness of round {done.round}: {done.address}")
        click.echo(f"then:     {again} --beacon {done.round}:VALUE")
        return
    click.echo(f"seed of its sealed variant: {done.seed}")
    if done.kept is None:
        drawn = "" if beacon is None else f" --beacon {beacon}"
        click.echo(f"make it:  make micro SEED={done.seed}\nthen:     {again}{drawn} --split build/micro-{done.seed}")
        return
    click.echo(f"written: {entries.parent / 'editions.json'} and {done.kept}")
    if done.missing:
        click.echo(f"not there yet: {', '.join(done.missing)}; run the same command again when they are")
    click.echo(f"next:  unlearnbench leaderboard retrain --edition {name}")


@leaderboard.command("retrain")
@click.argument("ids", metavar="[ENTRY ...]", nargs=-1)
@click.option("--edition", required=True, help="The closed edition.")
@click.option("--split", type=click.Path(path_type=Path), help="Its variant [default: the board's copy].")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs [default: build/editions/<edition>].")
@_entries
@click.option("--workers", type=click.IntRange(1), help="Seeds at once [default: one per core].")
@click.option("--again", is_flag=True, help="Train also what is there already, and compare; no entry is changed.")
@click.option("--allow-network", is_flag=True, help="Where the system itself has no network namespaces.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome of each as JSON lines.")
def retrain(
    ids: tuple[str, ...],
    edition: str,
    split: Path | None,
    out: Path | None,
    entries: Path,
    workers: int | None,
    again: bool,
    allow_network: bool,
    as_json: bool,
) -> int:
    """Train entries again on an edition's sealed variant, from their sources, and write the re-trained entries.

    This runs the entries' code, in a process without network. All entries that take part, unless some are named.
    Entries that are there are skipped, and interrupted runs are resumed. Exit status 1 if one of them fails.
    """
    from unlearnbench.cli.progress import Bars
    from unlearnbench.leaderboard.retrain_edition import Means, find_edition, ordered, retrain_entry

    found, variant = find_edition(entries, edition, split)
    chosen = ordered(entries, ids, found)
    place, failed = out or Path("build/editions") / edition, 0
    for number, one in enumerate(chosen, start=1):
        with Bars(f"{one.entry.id} ({number} of {len(chosen)})") as bars:
            done = retrain_entry(one, found, variant, place, entries, Means(workers, allow_network, bars.show, again))
        failed += done.made is None
        click.echo(_as_json(done) if as_json else _told(done), err=done.made is None and not as_json)
    return 1 if failed else 0


@leaderboard.command("standings")
@_entries
@_splits
@click.option("--edition", metavar="NAME", help="One edition alone; `each`: all, apart [default: pooled].")
@click.option("--track", type=click.Choice(TRACKS), help="One track alone.")
@click.option("--budget", metavar="1x", help="One budget alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the board as JSON.")
def standings(
    entries: Path,
    splits: tuple[str, ...],
    edition: str | None,
    track: str | None,
    budget: str | None,
    as_json: bool,
) -> None:
    """Rank the entries within their tier, track and budget: re-trained first, pooled over their editions.

    A rank is a range: entries that no test distinguishes share it. Gains are percentage points with 95 % intervals, p
    is adjusted for all entries of the group (Holm).
    """
    from unlearnbench.leaderboard.board import board, pooled_board
    from unlearnbench.leaderboard.editions import editions, find_splits
    from unlearnbench.leaderboard.entries import read_entries

    found, order = read_entries(entries), [edition.name for edition in editions(entries)]
    rows = (pooled_board if edition is None else board)(found, find_splits(entries, splits), order)
    rows = [
        row
        for row in rows
        if edition in (None, "each", row.entry.edition)
        and track in (None, row.standing.track)
        and (budget is None or row.standing.budget_name == f"{budget.removesuffix('x')}x")
    ]
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))
    else:
        _show_board(rows)


@leaderboard.command("rescore")
@_entries
@_splits
@click.option("--write", is_flag=True, help="Write the new results and counts into the entries.")
@_workers
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def rescore(entries: Path, splits: tuple[str, ...], write: bool, workers: int | None, as_json: bool) -> None:
    """Judge every entry's answers by the present verifier and rules, and print the ranks that changed."""
    from unlearnbench.io import files, tables
    from unlearnbench.leaderboard.board import rescore as run
    from unlearnbench.leaderboard.editions import find_splits
    from unlearnbench.leaderboard.entries import read_entries

    found = read_entries(entries)
    moved, again = run(found, find_splits(entries, splits), workers=workers or 1)
    for one in found if write else ():
        result, counts = again[one.entry.id]
        tables.write_parquet(one.folder / "counts.parquet", counts)
        files.write_json(one.folder / "result.json", result)
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") | {"moved": one.moved} for one in moved], indent=2))
    else:
        _show_moved(moved)


@leaderboard.command("rules")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write them [default: print them].")
def rules(out: Path | None) -> None:
    """Write the board's rules, with every number taken from the code."""
    from unlearnbench.io.files import write_text
    from unlearnbench.leaderboard.rules_page import rules as text

    if out is None:
        click.echo(text(), nl=False)
    else:
        write_text(out, text())


def _told(done: Outcome) -> str:
    if done.made is None:
        return f"{done.id}: {done.why}"
    score = done.made.result.conversion
    span = " to ".join(_points(end) for end in score.interval_families or ()) or "no interval"
    was = f" ({done.why or 'it was there'})" if done.before else ""
    return f"{done.id} -> {done.made.folder}: gain {_points(score.gain)} points ({span}){was}"


def _as_json(done: Outcome) -> str:
    made = done.made
    told = {"id": done.id, "entry": None if made is None else made.entry.id, "before": done.before, "why": done.why}
    return json.dumps(told | {"gain": None if made is None else made.result.conversion.gain})


def _show_board(rows: Sequence[Row]) -> None:
    """A table for each tier, edition (or pool of them), track and budget."""
    from itertools import groupby

    from unlearnbench.cli.console import print_sentence, print_table

    def heading(row: Row) -> str:
        at = row.standing
        told = f"{row.entry.tier}, track {at.track}, budget {at.budget_name}"
        return f"{told}, edition {at.editions[0]}" if at.id == row.entry.id and len(at.editions) == 1 else told

    def cells(row: Row) -> tuple[str, ...]:
        entry, at = row.entry, row.standing
        name = at.id + (" (withdrawn)" if entry.withdrawn else "*" if at.claim else "")
        conversion, frontier = at.conversion, at.frontier
        p = None if conversion is None else conversion.adjusted
        interval = None if conversion is None else conversion.interval
        return (
            _ranks(at.rank),
            name,
            _points(None if conversion is None else conversion.gain),
            "-" if interval is None else " to ".join(_points(end) for end in interval),
            "-" if p is None else p_value(p),
            _points(None if frontier is None else frontier.gain),
            "-" if at.easy_lost is None else f"{100 * at.easy_lost:.1f}",
        )

    head = ("rank", "entry", "gain", "95 % interval", "Holm p", "frontier", "easy lost")
    for title, group in groupby(rows, heading):
        click.echo(f"{title}:")
        print_table(head, map(cells, group), right=("rank", *head[2:]))
    print_sentence(
        "* converts more than GRPO re-run and, where shipped, tuned GRPO. Gains: points. Easy lost: % of the items."
    )


def _ranks(rank: tuple[int, int] | None) -> str:
    if rank is None:
        return "-"
    return str(rank[0]) if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def _show_moved(moved: Sequence[Moved]) -> None:
    from unlearnbench.cli.console import print_table

    changed = [one for one in moved if one.moved]
    old = sum(one.score_version_before == 1 for one in moved)
    click.echo(f"{len(moved)} entries scored again ({old} were of score version 1); {len(changed)} ranks moved")
    if not changed:
        return
    rows = []
    for one in changed:
        hits = ("-" if hit is None else f"{hit:.3g}" for hit in (one.converted_before, one.converted_after))
        ranks = (_ranks(rank) for rank in (one.rank_before, one.rank_after))
        rows.append((one.id, *ranks, *hits, _points(one.gain_before), _points(one.gain_after)))
    head = ("entry", "rank before", "after", "converted before", "after", "gain before", "after")
    print_table(head, rows, right=head[1:])


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+z.1f}"


@leaderboard.command("build")
@click.option(
    "--entries",
    type=click.Path(path_type=Path),
    default=Path("leaderboard/entries"),
    show_default=True,
    help="Folder of the entries.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/site"),
    show_default=True,
    help="Folder to write the site to.",
)
@click.option(
    "--split",
    "splits",
    multiple=True,
    metavar="FOLDER",
    help="A split that is neither shipped nor an edition's own; may be repeated.",
)
def build(entries: Path, out: Path, splits: tuple[str, ...]) -> None:
    """Write the board, a page per entry, a page per split and an introduction as static pages, and print the first.

    They need no server and load nothing from elsewhere.
    """
    from unlearnbench.leaderboard.site.build import build as run

    click.echo(run(entries, out, splits))
