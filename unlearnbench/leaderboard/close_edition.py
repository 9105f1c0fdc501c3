"""An edition of the board closed: its entries fixed by a commit, the seed of its sealed variant drawn from that.

    all entries committed → commit → seed → `make micro SEED=...` → the variant's hash in editions.json, and the variant
    in leaderboard/editions/<name>/

Nobody could know the seed while entries were written, and anybody can draw it again from the commit. The variant is
kept with its policies, since a machine that rounds otherwise makes other ones from the same seed.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unlearnbench.errors import RunError
from unlearnbench.io.files import write_bytes, write_json
from unlearnbench.leaderboard.claims import seed_of
from unlearnbench.leaderboard.editions import EDITIONS, ENTRIES, Edition, edition_folder, editions
from unlearnbench.leaderboard.entries import read_entries
from unlearnbench.splits import Split

VARIANT_OF = "micro"
CONTROLS = ("null_control/1x", "null_control/4x", "strong_null", "positive_control")
_CONTROL_FILES = ("result.json", "counts.parquet", "trials.json")
_READ = ("similar.parquet", "sub_problems.parquet", "positive_control/policy/*")
"""Files without a hash that some methods ask for."""
_LEFT_OUT = "data/"
"""The items a second time."""


@dataclass(frozen=True)
class Closed:
    """An edition as it was closed. `missing`: controls that the variant does not have yet."""

    edition: str
    commit: str
    seed: int
    entries: int
    kept: Path | None = None
    missing: Sequence[str] = ()


def drawn_seed(name: str, commit: str) -> int:
    """Seed of an edition's sealed variant: `seed_of("<edition's name>/<full commit id>")`."""
    return seed_of(f"{name}/{commit}")


def close(name: str, entries: Path = ENTRIES, commit: str | None = None, split: Split | None = None) -> Closed:
    """Close an edition with a commit that holds all entries (default HEAD), and draw the seed of its variant.

    With the variant, made from that seed, the edition is written: editions.json, and the split's tables and controls
    beside it. The same call again brings controls that were made since. Raises RunError where an entry is not in the
    commit, the variant has another seed, or the name is taken.
    """
    known = {edition.name: edition for edition in editions(entries)}
    before = known.get(name)
    chosen = _full_id(entries, commit or (before.drawn_from if before else None) or "HEAD")
    if before is not None and before.drawn_from != chosen:
        raise RunError(
            f"edition {name} is there already, "
            + (f"closed by commit {before.drawn_from[:12]}" if before.drawn_from else "and has no sealed variant")
            + "; give the new one another name"
        )
    if before is None:
        _require_committed(entries, chosen)
    closed = Closed(name, chosen, drawn_seed(name, chosen), len(taking_part(entries)))
    if split is None:
        return closed
    edition = _edition(name, chosen, split)
    if before is not None and before != edition:
        raise RunError(
            f"{split.path} has the labels {split.hash[:12]}, and edition {name} was written with those of "
            f"{before.split_hash[:12]}; name the folder that it was made with"
        )
    missing = _keep(split, edition_folder(entries, name))
    rows = [*known.values(), *([] if before else [edition])]
    write_json(entries.parent / EDITIONS, [row.model_dump(mode="json") for row in rows])
    return Closed(name, chosen, closed.seed, closed.entries, edition_folder(entries, name), missing)


def taking_part(entries: Path) -> list[str]:
    """Ids of the entries that an edition closed now trains again: all that are neither re-trained nor withdrawn."""
    found = read_entries(entries)
    return [one.entry.id for one in found if one.entry.tier != "re-trained" and one.entry.withdrawn is None]


def git(folder: Path, *words: str) -> bytes | None:
    """What git prints in a folder; None where it refuses. Raises RunError where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise RunError("git is needed to tell what the closing commit holds; install it") from error
    return done.stdout if done.returncode == 0 else None


def _full_id(entries: Path, commit: str) -> str:
    if not entries.is_dir():
        raise RunError(f"there is no folder {entries}; name the entries' folder with --entries")
    found = git(entries, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{commit}}")
    if found is None:
        raise RunError(
            f"there is no commit {commit!r:.80} in the repository of {entries}; fetch it, or name another one"
        )
    return found.decode().strip()


def _require_committed(entries: Path, commit: str) -> None:
    """Raises RunError naming the first file of an entry that the commit does not hold as it is."""
    for folder in sorted(path for path in entries.iterdir() if path.is_dir()):
        if any(folder.iterdir()) and not (folder / "entry.json").is_file():
            raise RunError(
                f"{folder} has no entry.json yet; enter its bundle with `unlearnbench leaderboard enter`, or remove it"
            )
    again = {one.entry.id for one in read_entries(entries) if one.entry.tier == "re-trained"}
    told = git(entries, "diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--", ".") or b""
    told += git(entries, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    changed = sorted(name for name in told.decode("utf-8", "replace").split("\0") if name)
    odd = [name for name in changed if name.split("/")[0] not in again]
    if odd:
        raise RunError(
            f"{entries / odd[0]} is not in commit {commit[:12]} as it is now ({len(odd)} such files): an edition is "
            "closed by a commit that holds all its entries; commit them, then close it with that commit"
        )


def _edition(name: str, commit: str, split: Split) -> Edition:
    seed = drawn_seed(name, commit)
    if (split.config.seed, split.name) != (seed, f"{VARIANT_OF}-{seed}"):
        raise RunError(
            f"{split.path} is {split.name} with seed {split.config.seed}, and edition {name} drew the seed {seed}; "
            f"make its variant with `make micro SEED={seed}` and name build/{VARIANT_OF}-{seed}"
        )
    try:
        return Edition(name=name, split=split.name, split_hash=split.hash, variant=seed, drawn_from=commit)
    except ValidationError as error:
        raise RunError(
            f"{name!r:.80} is no name of an edition; take letters, digits, '.' and '-', at most 40"
        ) from error


def _keep(split: Split, folder: Path) -> list[str]:
    """Copy what entries are trained on, ranked and shown by; returns the controls that are not there yet.

    Raises RunError where the ones that every entry needs are missing.
    """
    there = [name for name in CONTROLS if all((split.path / name / file).is_file() for file in _CONTROL_FILES[:2])]
    for name in ("null_control/1x", "strong_null"):
        if name not in there:
            raise RunError(
                f"{split.path} has no {name} yet, which every entry is scored against; wait until `make micro "
                f"SEED={split.config.seed}` has ended"
            )
    files = [name for name in split.config.files if not name.startswith(_LEFT_OUT)]
    files += [f"{name}/{file}" for name in there for file in _CONTROL_FILES if (split.path / name / file).is_file()]
    files += [str(path.relative_to(split.path)) for pattern in _READ for path in sorted(split.path.glob(pattern))]
    for name in [*files, "split.yaml"]:
        write_bytes(folder / name, (split.path / name).read_bytes())
    return [name for name in CONTROLS if name not in there]
