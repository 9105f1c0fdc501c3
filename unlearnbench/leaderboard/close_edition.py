"""Closing an edition of the board: a commit fixes its entries, then a public beacon's later value draws its split.

    all entries committed → commit → the round of the beacon that follows from its time → its value → seed
    → `make micro SEED=...` → the variant's hash in editions.json, and the variant in leaderboard/editions/<name>/

Nobody can know the seed while entries are written, and nobody can choose it: a commit's id alone could be varied until
a variant suits. This holds where the commit is public before the round is. Anybody can draw the seed again from the
commit and the beacon's value. The variant is kept with its policies, since a machine that rounds differently makes
other ones from the same seed.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from unlearnbench.errors import RunError
from unlearnbench.io.files import write_bytes, write_json
from unlearnbench.leaderboard.editions import (
    CHAIN,
    EDITIONS,
    ENTRIES,
    Beacon,
    Edition,
    edition_folder,
    editions,
    published,
    round_after,
)
from unlearnbench.leaderboard.entries import read_entries
from unlearnbench.leaderboard.verification.claims import seed_of
from unlearnbench.splits import Split

VARIANT_OF = "micro"
CONTROLS = ("null_control/1x", "null_control/4x", "tuned_null", "positive_control")
_CONTROL_FILES = ("result.json", "counts.parquet", "curves.parquet")
_READ = ("similar.parquet", "sub_problems.parquet", "positive_control/policy/*")
"""Files without a hash that some methods ask for."""
_LEFT_OUT = "data/"
"""The items a second time."""


@dataclass(frozen=True)
class Closed:
    """An edition as far as it is closed."""

    edition: str
    commit: str
    entries: int
    round: int | None
    """The round of the beacon that it draws from; None for an edition that was drawn from its commit alone."""
    seed: int | None
    """None until the beacon's value is given."""
    kept: Path | None = None
    missing: Sequence[str] = ()
    """Controls that the variant does not have yet."""

    @property
    def address(self) -> str:
        """Where the beacon's value can be read."""
        return f"https://api.drand.sh/{CHAIN}/public/{self.round}"


def drawn_seed(name: str, commit: str, beacon: Beacon | None = None) -> int:
    """Seed of an edition's sealed variant: `seed_of("<edition's name>/<full commit id>/<round>/<value>")`.

    Without the last two for editions that were drawn from their commit alone.
    """
    return seed_of(f"{name}/{commit}" + ("" if beacon is None else f"/{beacon.round}/{beacon.value}"))


def close(
    name: str,
    entries: Path = ENTRIES,
    commit: str | None = None,
    value: str | None = None,
    split: Split | None = None,
) -> Closed:
    """Close an edition with a commit that holds all entries (default HEAD), and draw the seed of its variant.

    `value` is the beacon's, of the round that follows from the commit's time ("<round>:<hexadecimal>"); without it the
    round is returned and no seed. With the variant, made from that seed, the edition is written: editions.json, and the
    split's tables and controls beside it. The same call again adds controls that were made since. Raises RunError where
    an entry is not in the commit, the value is malformed or of another round, the variant has another seed, or the name
    is taken.
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
        beacon = None if value is None else _beacon(entries, chosen, value)
    else:
        beacon = before.beacon
    drawn = before is not None or beacon is not None
    closed = Closed(
        name,
        chosen,
        len(taking_part(entries)),
        _round(entries, chosen) if before is None else (before.beacon.round if before.beacon else None),
        drawn_seed(name, chosen, beacon) if drawn else None,
    )
    if split is None:
        return closed
    if closed.seed is None:
        raise RunError(f"edition {name} has no seed yet; give the value of round {closed.round} with --beacon")
    edition = _edition(name, chosen, beacon, split)
    if before is not None and before != edition:
        raise RunError(
            f"{split.path} has the labels {split.hash[:12]}, and edition {name} was written with those of "
            f"{before.split_hash[:12]}; name the folder that it was made with"
        )
    missing = _keep(split, edition_folder(entries, name))
    rows = [*known.values(), *([] if before else [edition])]
    write_json(entries.parent / EDITIONS, [row.model_dump(mode="json") for row in rows])
    return Closed(name, chosen, closed.entries, closed.round, closed.seed, edition_folder(entries, name), missing)


def taking_part(entries: Path) -> list[str]:
    """Ids of the entries that an edition closed now trains again: all that are neither re-trained nor withdrawn."""
    found = read_entries(entries)
    return [one.entry.id for one in found if one.entry.tier != "re-trained" and one.entry.withdrawn is None]


def git(folder: Path, *words: str) -> bytes | None:
    """What git prints in a folder; None where it fails. Raises RunError where there is no git."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise RunError("git is needed to read what the closing commit holds; install it") from error
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


def _round(entries: Path, commit: str) -> int:
    """The round of the beacon that a commit's edition draws from: the first one DELAY after the commit's time."""
    return round_after(int(git(entries, "show", "--no-patch", "--format=%ct", commit) or b"0"))


def _beacon(entries: Path, commit: str, value: str) -> Beacon:
    round_, wanted = value.partition(":")[0], _round(entries, commit)
    try:
        found = Beacon(round=int(round_), value=value.partition(":")[2])
    except (ValueError, ValidationError) as error:
        raise RunError(
            f"--beacon {value!r:.90} is not ROUND:VALUE, VALUE the round's randomness: 64 small hexadecimal digits"
        ) from error
    if found.round != wanted:
        raise RunError(
            f"--beacon is of round {found.round}, and an edition closed by commit {commit[:12]} draws from round "
            f"{wanted}"
        )
    if time.time() < published(wanted):
        when = datetime.fromtimestamp(published(wanted), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise RunError(f"round {wanted} of the beacon is published at {when}; wait until then")
    return found


def _require_committed(entries: Path, commit: str) -> None:
    """Raise RunError naming the first file of an entry that the commit does not hold as it is."""
    for folder in sorted(path for path in entries.glob("*/*") if path.is_dir()):
        if any(folder.iterdir()) and not (folder / "entry.json").is_file():
            raise RunError(
                f"{folder} has no entry.json yet; enter its bundle with `unlearnbench leaderboard enter`, or remove it"
            )
    again = {one.place for one in read_entries(entries) if one.entry.tier == "re-trained"}
    told = git(entries, "diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--", ".") or b""
    told += git(entries, "ls-files", "--others", "--exclude-standard", "-z", "--", ".") or b""
    changed = sorted(name for name in told.decode("utf-8", "replace").split("\0") if name)
    odd = [name for name in changed if name.rpartition("/")[0] not in again]
    if odd:
        raise RunError(
            f"{entries / odd[0]} is not in commit {commit[:12]} as it is now ({len(odd)} such files): an edition is "
            "closed by a commit that holds all its entries; commit them, then close it with that commit"
        )


def _edition(name: str, commit: str, beacon: Beacon | None, split: Split) -> Edition:
    seed = drawn_seed(name, commit, beacon)
    if (split.config.seed, split.name) != (seed, f"{VARIANT_OF}-{seed}"):
        raise RunError(
            f"{split.path} is {split.name} with seed {split.config.seed}, and edition {name} drew the seed {seed}; "
            f"make its variant with `make micro SEED={seed}` and name build/{VARIANT_OF}-{seed}"
        )
    try:
        return Edition(
            name=name, split=split.name, split_hash=split.hash, variant=seed, drawn_from=commit, beacon=beacon
        )
    except ValidationError as error:
        raise RunError(f"{name!r:.80} cannot name an edition; use letters, digits, '.' and '-', at most 40") from error


def _keep(split: Split, folder: Path) -> list[str]:
    """Copy what entries are trained on, ranked and shown by; returns the controls that are not there yet.

    Raises RunError where those that every entry needs are missing.
    """
    tuned = [f"tuned_null/{rate:g}" for rate in sorted(split.tuned_nulls())]
    there = [name for name in CONTROLS if all((split.path / name / file).is_file() for file in _CONTROL_FILES[:2])]
    there += ["tuned_null", *tuned] if tuned else []
    for name in ("null_control/1x", "tuned_null"):
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
