"""The leaderboard's site: static pages from the entries' own files and the splits, which work offline without a server.

    index.html                the board: a picture and one table of all entries
    board.json, board.csv     the table as numbers
    phenomenon.html           the phenomenon in pictures
    entry/<id>/index.html     one entry, with its result.json, counts and source beside it
    split/<name>/index.html   one split
    documents/                README, documents and rules of the checkout, where there is one
    site.css, site.js         the only style, and the board's script; report.js is that of an entry's item browser

What entries and splits wrote is hostile text: jinja escapes it, and each page's policy forbids scripts but these files.
The same entries give the same bytes.
"""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from unlearnbench import __version__
from unlearnbench.errors import DataError
from unlearnbench.io.files import atomic, write_bytes
from unlearnbench.leaderboard.bundles.address import BUNDLE, read_ref
from unlearnbench.leaderboard.editions import ENTRIES, edition_folder, editions, find_splits
from unlearnbench.leaderboard.entries import TIERS, read_entries
from unlearnbench.leaderboard.site import figures
from unlearnbench.leaderboard.site.board_page import POOLED, Line, Scale, lines
from unlearnbench.leaderboard.site.controls import control_lines
from unlearnbench.leaderboard.site.documents import FOLDER, Document, documents
from unlearnbench.leaderboard.site.downloads import write_downloads
from unlearnbench.leaderboard.site.split_page import Example, SplitFacts
from unlearnbench.records import TRACKS, Result
from unlearnbench.reports.formatting import pct, plain, plural, points, signed
from unlearnbench.reports.reproduce import command as eval_command
from unlearnbench.reports.run_files import Run
from unlearnbench.reports.run_report import PARTS, sections
from unlearnbench.reports.templating import new_templates, source
from unlearnbench.splits import Split, load_split, shipped_splits

MEANING: Mapping[str, str] = {
    "easy": "the base solves it",
    "learnable": "hard, and solved after every reference run",
    "unlearnable": "hard, rewarded, and solved after none",
    "no_reward": "hard, never (or once) rewarded, and solved after none",
    "unstable": "differs between the runs",
    "boundary": "as unlearnable, but too near tau to be sure",
}
ENTRY_PARTS: Sequence[tuple[str, str]] = (("standing", "Standing"), *PARTS[:-2], ("files", "Files"), *PARTS[-2:])
BROWSED = 4_000_000
"""Bytes that the item browsers of all entries' pages may take together, so that the site stays small. In each the
unlearnable items come first."""
FILES = ("result.json", "counts.parquet", "fates.parquet")
"""Of an entry, copied beside its page, as is the method's source."""
BEHIND: Mapping[str, str] = {
    "re-trained": "its source was trained again, on a split drawn after the commits of all entries",
    "re-measured": "its weights were measured again here; how they were trained is its word",
    "re-scored": "every verdict and number was made again from its rollouts; that a policy wrote them is its word",
    "self-reported": "its own word",
}
MAX_FAMILIES = 500  # rows of a split's table


@dataclass(frozen=True)
class Site:
    """Where a site is written, with what all of its pages share."""

    out: Path
    lines: Sequence[Line]
    splits: Mapping[str, SplitFacts]
    environment: Environment

    def write(self, name: str, template: str, **context: Any) -> Path:
        """Render a page to `name`, a path in the site."""
        root = "../" * name.count("/")
        shared = {"root": root, "here": name, "version": __version__}
        page = self.environment.get_template(f"site/{template}").render(shared | context)
        path = self.out / name
        write_bytes(path, page.encode("utf-8", "replace"))
        return path


def build(entries: Path, out: Path, folders: Sequence[str | Path] = ()) -> Path:
    """Write the site of the entries in `entries` to `out` and return its first page.

    `folders` are splits that are neither shipped nor kept beside the entries, as those of closed editions are. Raises
    DataError, SplitError or RunError, naming the file, where an entry or a split is malformed.
    """
    own = [load_split(folder) for folder in folders]
    shipped = [load_split(name) for name in shipped_splits()]
    find = find_splits(entries, folders)
    found = read_entries(entries)
    used: dict[str, Split] = {}
    for split in (*shipped, *own, *(find(one.result) for one in found)):
        used.setdefault(split.hash, split)  # a shipped one has more than the copy that an edition keeps
    pages = _page_names(list(used.values()))
    splits = {pages[split.hash]: SplitFacts(split) for split in used.values()}
    guide = documents(entries.parent.parent)
    environment = _environment({document.name for document in guide})
    shown = lines(found, find, lambda split: pages[split.hash], editions(entries))
    site = Site(out, shown, {name: splits[name] for name in sorted(splits)}, environment)
    for script in ("site/site.js", "report.js"):
        write_bytes(out / script.rpartition("/")[2], source(script).encode())
    write_bytes(out / "site.css", f"{source('page.css')}\n{source('site/site.css')}".encode())
    for line in shown:
        if not line.pooled:
            _write_entry(site, line, entries)
    for name in site.splits:
        _write_split(site, name)
    _write_phenomenon(site)
    _write_documents(site, guide, entries.parent.parent)
    _remove_others(out / "entry", {line.id for line in shown if not line.pooled})
    _remove_others(out / "split", set(splits))
    return _write_index(site)


def _page_names(splits: Sequence[Split]) -> dict[str, str]:
    """By hash, the name of each split's page: its own, with some of its hash where labels of two versions are there."""
    often = Counter(split.name for split in splits)
    return {split.hash: split.name if often[split.name] == 1 else f"{split.name}-{split.hash[:8]}" for split in splits}


def _environment(known: Set[str]) -> Environment:
    """The templates; `known` are the addresses of the documents that the site has."""

    def guide(root: str, page: str, text: str) -> Markup:
        """A link to a document, or its text alone where the site has no documents."""
        address = f"{FOLDER}/{page}"
        if address.partition("#")[0] not in known:
            return Markup(text)
        return Markup('<a href="{}{}">{}</a>').format(root, address, text)

    environment = new_templates()
    environment.filters["signed"] = signed
    # For site.js, which reads an empty text as unknown.
    environment.filters["figure"] = lambda value: f"{value:.9g}" if isinstance(value, int | float) else ""
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(plain(name).split("_"))
    environment.globals |= {"meaning": MEANING, "behind": BEHIND, "max_families": MAX_FAMILIES}
    environment.globals |= {"guide": guide, "documented": bool(known)}
    return environment


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the pages of entries or splits that are no longer there, and nothing that the site did not write."""
    for gone in sorted(folder.glob("*/index.html")):
        if gone.parent.name not in kept:
            for name in ("index.html", *FILES):
                (gone.parent / name).unlink(missing_ok=True)
            for source in gone.parent.glob("*.py"):
                source.unlink()
            if not any(gone.parent.iterdir()):
                gone.parent.rmdir()


# --- pages --------------------------------------------------------------------------------------------------------


def _write_index(site: Site) -> Path:
    found = site.lines
    tiers = [tier for tier in reversed(TIERS) if any(line.tier == tier for line in found)]
    named = [POOLED, *sorted({line.edition for line in found} - {POOLED})] if found else []
    tracks = [str(track) for track in TRACKS if any(line.track == track for line in found)]
    options = {
        "split": sorted({line.split for line in found}),
        "budget": list(dict.fromkeys(line.budget for line in sorted(found, key=lambda line: line.multiple))),
        "tier": tiers,
        "edition": named,
    }
    write_downloads(site.out, found)
    return site.write(
        "index.html",
        "index.html",
        lines=found,
        controls=control_lines(found, site.splits),
        options=options,
        default_tier=tiers[0] if len(tiers) > 1 else None,
        default_edition=POOLED if found else None,
        track_tabs=[*((track, track) for track in tracks), ("all", "all")],
        default_track=next(iter(tracks), "all"),
        scale=Scale.of(found),
        splits=[(name, facts, _controls(facts)) for name, facts in site.splits.items()],
        answer=answer(found),
    )


def answer(found: Sequence[Line]) -> str | None:
    """The board's answer to its question, by the strongest tier's pooled rows; None where no such method has a rank."""
    pooled = [line for line in found if line.pooled and line.standing.rank is not None]
    seeing = [line for line in pooled if line.track == "verifier" and line.tier == pooled[0].tier]
    if not seeing:
        return None
    more = sum(line.standing.claim for line in seeing)
    tuned = all(line.standing.tuned is not None for line in seeing)
    nulls = "GRPO re-run and tuned GRPO" if tuned else "GRPO re-run (the editions ship no tuned GRPO)"
    best = max(line.gain or 0.0 for line in seeing)
    return (
        f"{more or 'None'} of the {plural(len(seeing), 'method')} that see only right or wrong "
        f"{'converts' if more <= 1 else 'convert'} more than {nulls}; the largest gain of one is {points(best)}."
    )


def _controls(facts: SplitFacts) -> str:
    """The conversion of a split's controls."""
    return ", ".join(f"{of.name} {pct(of.converted)}" for of in facts.controls if of.converted is not None)


def _write_entry(site: Site, line: Line, entries: Path) -> None:
    run = Run(line.folder, site.splits[line.split].split, line.result)
    files = {name: path for name in FILES if (path := _own_file(line.folder, name))}
    if method := _own_file(line.folder.parent, line.entry.source):
        files[line.entry.source] = method
    pooled = next(of for of in site.lines if of.pooled and line.id in of.standing.entries)
    content = sections(run, BROWSED // sum(not of.pooled for of in site.lines))
    site.write(
        f"entry/{line.id}/index.html",
        "entry.html",
        **content | {"links": [(name, name) for name in files], "command": command(line, run.split, entries)},
        line=line,
        pooled=pooled if len(pooled.standing.entries) > 1 else None,
        files=list(files),
        source=None if method is None else method.read_text(encoding="utf-8", errors="replace"),
        link=line.entry.url if (line.entry.url or "").startswith(("https://", "http://")) else None,
        bundle=read_ref(path) if (path := _own_file(line.folder, BUNDLE)) else None,
        trained_from=next((of.id for of in site.lines if of.id == line.entry.trained_from), None),
        trained_again=[of.id for of in site.lines if not of.pooled and of.entry.trained_from == line.id],
        entry_parts=ENTRY_PARTS,
    )
    for name, path in files.items():
        with atomic(site.out / "entry" / line.id / name) as target, path.open("rb") as content_of:
            shutil.copyfileobj(content_of, target)


def _own_file(folder: Path, name: str) -> Path | None:
    """A file of an entry's folder; None if there is none. Raises DataError for a path outside the folder."""
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise DataError(f"{path}: it is not a plain file of the entry's folder; put a copy there")
    return path if path.is_file() else None


def _own_seeds(result: Result) -> bool:
    """Whether the seeds are those that `eval` uses by default."""
    return list(result.seeds) == list(range(1, len(result.seeds) + 1))


def command(line: Line, split: Split, entries: Path = ENTRIES) -> str | None:
    """The command that makes a result again, run in a checkout; None where none does."""
    result, home = line.result, f"{ENTRIES}/{line.entry.place}"
    kept = edition_folder(entries, line.entry.edition)
    if line.entry.trained_from is not None:
        words = ["unlearnbench", "leaderboard", "retrain", "--again", "--edition", line.entry.edition]
        if (split.path / split.config.base_policy.path).is_dir():
            return shlex.join([*words, line.entry.trained_from])
        made = shlex.join([*words, "--split", f"build/{split.name}", line.entry.trained_from])
        return f"make micro SEED={split.config.seed} && {made}"
    if result.kind == "score" or (line.entry.bundle and not _own_seeds(result)):
        return shlex.join(["unlearnbench", "leaderboard", "verify", home, "--rerun"])
    where = str(edition_folder(ENTRIES, line.entry.edition)) if (kept / "split.yaml").is_file() else result.split
    return eval_command(result, split, line.folder, f"{ENTRIES}/{line.id}/{line.entry.source}", where)


def _write_split(site: Site, name: str) -> None:
    facts = site.splits[name]
    strips = facts.strips(*facts.groups)
    curves = {name: (of.steps, of.curve) for name, of in facts.released.groups.items()} if facts.released else {}
    site.write(
        f"split/{name}/index.html",
        "split.html",
        facts=facts,
        strips=_drawn(bool(strips), lambda: figures.strips_plot(strips, tau=facts.tau)),
        rewards=_drawn(bool(curves), lambda: figures.rewards_plot(curves)),
        entries=[line for line in site.lines if line.split == name and not line.pooled],
    )


def _write_phenomenon(site: Site) -> None:
    told = [name for name, facts in site.splits.items() if facts.luck and len(facts.curves) > 1]
    told = [name for name in told if _shown(site.splits[name])] or told  # variants were kept without rollouts
    page = told[0] if told else next(iter(site.splits))
    facts = site.splits[page]
    hard = facts.strips("learnable", "unlearnable")
    both = len(hard) == 2 and all(strip.after is not None for strip in hard)
    site.write(
        "phenomenon.html",
        "phenomenon.html",
        page=page,
        facts=facts,
        shown=_shown(facts),
        means={strip.name: float(strip.before.mean()) for strip in hard},
        ends={strip.name: float(strip.after.mean()) for strip in hard if strip.after is not None},
        start=_drawn(both, lambda: figures.same_start_plot(hard, tau=facts.tau)),
        luck=_drawn(bool(facts.luck), lambda: figures.luck_plot(facts.luck)),
        sorted=_drawn(len(facts.curves) > 1, lambda: figures.sorted_rates_plot(facts.curves, tau=facts.tau)),
    )


def _write_documents(site: Site, guide: Sequence[Document], checkout: Path) -> None:
    """The documents, and the pictures in them at the same place beside them."""
    for document in guide:
        site.write(document.name, "document.html", document=document)
        for picture in document.pictures:
            write_bytes(site.out / FOLDER / picture, (checkout / picture).read_bytes())


def _drawn(possible: bool, draw: Callable[[], str]) -> Markup | None:
    return Markup(draw()) if possible else None


def _shown(facts: SplitFacts) -> list[tuple[str, Example]]:
    """One easy, one learnable and one unlearnable problem: of those on the split's page, the plainest successes."""
    found = []
    for group in ("easy", "learnable", "unlearnable"):
        candidates = [of for of in facts.examples.get(group, []) if of.successes]
        if candidates:
            found.append((f"{group}: {MEANING[group]}", max(candidates, key=lambda of: of.successes[0].count)))
    return found
