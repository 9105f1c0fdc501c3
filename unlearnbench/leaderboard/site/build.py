"""The leaderboard's site: static pages from the entries' own files and the splits, which work offline without a server.

    index.html                the board: one table of all entries
    phenomenon.html           the phenomenon in pictures
    entry/<id>/index.html     one entry, with its result.json, counts and source beside it
    split/<name>/index.html   one split
    site.css, site.js         the only style and script

What entries and splits wrote is hostile text: jinja escapes it, and each page's policy forbids scripts but site.js.
The same entries give the same bytes.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from markupsafe import Markup

from unlearnbench import __version__
from unlearnbench.errors import DataError
from unlearnbench.io.files import atomic, write_bytes
from unlearnbench.io.tables import read_parquet
from unlearnbench.leaderboard.bundles.address import BUNDLE, read_ref
from unlearnbench.leaderboard.bundles.tables import LEDGER
from unlearnbench.leaderboard.editions import ENTRIES, editions, find_splits
from unlearnbench.leaderboard.entries import TIERS, read_entries
from unlearnbench.leaderboard.site import figures
from unlearnbench.leaderboard.site.board_page import Line, Scale, lines
from unlearnbench.leaderboard.site.split_page import Example, SplitFacts
from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import TRACKS, Result
from unlearnbench.reports import plots
from unlearnbench.reports.formatting import pct, plain
from unlearnbench.reports.run_files import Run
from unlearnbench.reports.run_report import new_templates, sections
from unlearnbench.splits import Split, load_split, shipped_splits

MEANING: Mapping[str, str] = {
    "easy": "the base solves it",
    "learnable": "hard, and solved after every reference run",
    "unlearnable": "hard, rewarded, and solved after none",
    "no_reward": "hard, never (or once) rewarded, and solved after none",
    "unstable": "differs between the runs",
    "boundary": "as unlearnable, but too near tau to be sure",
}
PARTS: Sequence[tuple[str, str]] = (
    ("standing", "Standing"),
    ("reproduce", "Reproduce"),
    ("headline", "Headline"),
    ("groups", "Groups"),
    ("items", "Items"),
    ("families", "Families"),
    ("twins", "Twins"),
    ("curves", "Curves"),
    ("fates", "Fates"),
    ("canaries", "Canaries"),
    ("retention", "Retention"),
    ("cost", "Cost"),
    ("settings", "Settings"),
    ("meaning", "Meaning"),
)
FILES = ("result.json", "counts.parquet", "fates.parquet")
"""Of an entry, copied beside its page, as is the method's source."""
BEHIND: Mapping[str, str] = {
    "re-trained": "its source was trained again, on a split drawn after the commits of all entries",
    "re-measured": "its weights were measured again here; how they were trained is its word",
    "re-scored": "every verdict and number was made again from its rollouts; that a policy wrote them is its word",
    "self-reported": "its own word",
}
MAX_FAMILIES = 500  # rows of a split's table
_SUMMED, _SHARES = ("rollouts", "correct", "tokens"), ("correct rollouts",)


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
    used = {split.hash: split for split in [*shipped, *own, *(find(one.result) for one in found)]}
    pages = _page_names(list(used.values()))
    splits = {pages[split.hash]: SplitFacts(split) for split in used.values()}
    environment = _environment()
    order = [edition.name for edition in editions(entries)]
    shown = lines(found, find, lambda split: pages[split.hash], order)
    site = Site(out, shown, {name: splits[name] for name in sorted(splits)}, environment)
    write_bytes(out / "site.js", _source("site.js"))
    write_bytes(out / "site.css", _source("../page.css") + b"\n" + _source("site.css"))
    for line in shown:
        _write_entry(site, line)
    for name in site.splits:
        _write_split(site, name)
    _write_phenomenon(site)
    _remove_others(out / "entry", {line.id for line in shown})
    _remove_others(out / "split", set(splits))
    return _write_index(site)


def _page_names(splits: Sequence[Split]) -> dict[str, str]:
    """By hash, the name of each split's page: its own, with some of its hash where labels of two versions are there."""
    often = Counter(split.name for split in splits)
    return {split.hash: split.name if often[split.name] == 1 else f"{split.name}-{split.hash[:8]}" for split in splits}


def _environment() -> Environment:
    environment = new_templates()
    environment.filters["signed"] = lambda value: f"{100 * value:+z.1f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(plain(name).split("_"))
    environment.globals |= {"meaning": MEANING, "behind": BEHIND, "max_families": MAX_FAMILIES}
    return environment


def _source(name: str) -> bytes:
    return (Path(__file__).resolve().parents[2] / "templates" / "site" / name).resolve().read_bytes()


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
    named = sorted({line.edition for line in found})
    options = {
        "split": sorted({line.split for line in found}),
        "track": [track for track in TRACKS if any(line.track == track for line in found)],
        "budget": list(dict.fromkeys(line.budget for line in sorted(found, key=lambda line: line.multiple))),
        "tier": tiers,
        "edition": named,
    }
    return site.write(
        "index.html",
        "index.html",
        lines=found,
        options=options,
        default_tier=tiers[0] if len(tiers) > 1 else None,
        # the lines of the strongest tier come first, and of these the newest edition's
        default_edition=found[0].edition if len(named) > 1 else None,
        scale=Scale.of(found),
        splits=[(name, facts, _controls(facts)) for name, facts in site.splits.items()],
    )


def _controls(facts: SplitFacts) -> str:
    """The conversion of a split's controls."""
    return ", ".join(f"{of.name} {pct(of.converted)}" for of in facts.controls if of.converted is not None)


def _write_entry(site: Site, line: Line) -> None:
    run = Run(line.folder, site.splits[line.split].split, line.result)
    files = {name: path for name in FILES if (path := _own_file(line.folder, name))}
    if source := _own_file(line.folder.parent, line.entry.source):
        files[line.entry.source] = source
    content = sections(run) | {"fates_data": None}  # the same numbers lie beside the page, a tenth of the size
    if content["curves_figure"] is None:
        content["curves_figure"] = _curves(line)
    site.write(
        f"entry/{line.id}/index.html",
        "entry.html",
        **content,
        line=line,
        command=command(line, run.split),
        own_seeds=_own_seeds(line.result),
        files=list(files),
        source=None if source is None else source.read_text(encoding="utf-8", errors="replace"),
        link=line.entry.url if (line.entry.url or "").startswith(("https://", "http://")) else None,
        bundle=read_ref(path) if (path := _own_file(line.folder, BUNDLE)) else None,
        trained_from=next((other.id for other in site.lines if other.id == line.entry.trained_from), None),
        trained_again=[other.id for other in site.lines if other.entry.trained_from == line.id],
        parts=PARTS,
    )
    for name, path in files.items():
        with atomic(site.out / "entry" / line.id / name) as target, path.open("rb") as content_of:
            shutil.copyfileobj(content_of, target)


def _own_file(folder: Path, name: str) -> Path | None:
    """A file of an entry's folder; None where there is none. Raises DataError for what leads out of the folder."""
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise DataError(f"{path}: it is no plain file of the entry's folder; put a copy there")
    return path if path.is_file() else None


def _curves(line: Line) -> Markup | None:
    """Learning curves from the entry's ledger, where it brings no metrics; None without a ledger."""
    path = _own_file(line.folder, "ledger.parquet")
    if path is None:
        return None
    ledger = read_parquet(path, {field.name: field.type for field in LEDGER})
    rows = ledger.group_by(["seed", "step"]).aggregate([(name, "sum") for name in _SUMMED])
    rows = rows.sort_by([("seed", "ascending"), ("step", "ascending")])
    found: dict[str, dict[str, list[float]]] = {"correct rollouts": {}, "length": {}, "rollouts": {}}
    for row in rows.to_pylist():
        drawn, seed = row["rollouts_sum"], str(row["seed"])
        values = (row["correct_sum"] / drawn, row["tokens_sum"] / drawn, drawn) if drawn else (math.nan, math.nan, 0)
        for title, value in zip(found, values, strict=True):
            found[title].setdefault(seed, []).append(value)
    units = {"correct rollouts": "% of rollouts", "length": "tokens per rollout", "rollouts": "per step"}
    panels = [
        plots.Panel(title, units[title], {seed: np.array(values) for seed, values in seeds.items()}, title in _SHARES)
        for title, seeds in found.items()
    ]
    return Markup(plots.learning_curves(panels)) if rows.num_rows else None


def _own_seeds(result: Result) -> bool:
    """Whether the seeds are those that `eval` uses by default."""
    return list(result.seeds) == list(range(1, len(result.seeds) + 1))


def command(line: Line, split: Split) -> str:
    """The command that reproduces a result: every setting that is not the split's recipe is spelled out."""
    result, home = line.result, f"{ENTRIES}/{line.entry.place}"
    if line.entry.trained_from is not None:
        again = ["unlearnbench", "leaderboard", "retrain", "--edition", line.edition]
        if (split.path / split.config.base_policy.path).is_dir():
            return f"rm -r {shlex.quote(home)} && {shlex.join([*again, line.entry.trained_from])}"
        made = shlex.join([*again, "--split", f"build/{split.name}", line.entry.trained_from])
        return f"make micro SEED={split.config.seed} && {made}"
    if result.kind == "score" or (line.entry.bundle and not _own_seeds(result)):
        return shlex.join(["unlearnbench", "leaderboard", "verify", home, "--rerun"])
    words = ["unlearnbench", "eval"]
    if result.kind == "checkpoint":
        words += [word for seed in result.seeds for word in ("--checkpoint", f"POLICY-{seed}")]
        return shlex.join([*words, "--split", result.split, "--samples", str(result.samples)])
    name = result.method.name
    built_in = name in BUILT_IN and locate(name).hash == result.method.source_hash
    words += ["--method", name if built_in else f"{ENTRIES}/{line.id}/{line.entry.source}", "--split", result.split]
    words += ["--seeds", str(len(result.seeds)), "--samples", str(result.samples), "--budget", line.budget]
    recipe = split.config.recipe.model_dump(mode="json")
    for key, value in result.method.settings.items():
        if key not in recipe or recipe[key] != value:
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _write_split(site: Site, name: str) -> None:
    facts = site.splits[name]
    strips = facts.strips(*facts.groups)
    site.write(
        f"split/{name}/index.html",
        "split.html",
        facts=facts,
        strips=_drawn(bool(strips), lambda: figures.strips_plot(strips, tau=facts.tau)),
        entries=[line for line in site.lines if line.split == name],
    )


def _write_phenomenon(site: Site) -> None:
    told = [name for name, facts in site.splits.items() if facts.luck and len(facts.curves) > 1]
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
