"""The re-trained tier: every entry's source trained again on the sealed variant of a closed edition.

entry as the closing commit holds it → seeds of both hashes → `evaluate` → bundle → verified
→ leaderboard/entries/<id>/<edition>/

Source, settings, budget and samples are the entry's; nobody chooses split and seeds. An entry that is there is not made
again, and the same command resumes an interrupted run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from unlearnbench.errors import RunError, UnlearnBenchError
from unlearnbench.harness.evaluate import evaluate_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files
from unlearnbench.leaderboard.bundles.address import ref_of
from unlearnbench.leaderboard.bundles.bundle import Statement
from unlearnbench.leaderboard.bundles.writing import write_bundle
from unlearnbench.leaderboard.close_edition import git, taking_part
from unlearnbench.leaderboard.editions import ENTRIES, Edition, edition_folder, editions
from unlearnbench.leaderboard.entries import BoardEntry, Entry, read_entries, read_entry, write_entry
from unlearnbench.leaderboard.verification import examine
from unlearnbench.leaderboard.verification.claims import retraining_seeds
from unlearnbench.leaderboard.verification.rerun import Trained, difference, require_no_network
from unlearnbench.methods import locate
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.records import Result
from unlearnbench.scoring.comparisons.comparability import read_run
from unlearnbench.splits import Split, load_split
from unlearnbench.workers.jobs import Compute, Watch

NEEDED = {
    "similar": "similar.parquet",
    "sub_problems": "sub_problems.parquet",
    "teacher": "positive_control/policy/model.safetensors",
    "base": "positive_control/policy/model.safetensors",
}
"""What a method reads, and the file of the variant that holds it."""


@dataclass(frozen=True)
class Again:
    """What is trained again: an entry as it was when its edition was closed, and where its re-trained entry goes."""

    one: BoardEntry
    source: bytes
    claimed: Result
    seeds: Sequence[int]
    id: str
    then: Entry
    """entry.json as the commit holds it: a class of the source could be chosen once the variant is known."""


@dataclass(frozen=True)
class Outcome:
    """What became of one entry: the re-trained one, or the reason why there is none."""

    id: str
    made: BoardEntry | None = None
    before: bool = False
    """The re-trained entry was there already."""
    why: str | None = None
    """The reason; of an entry that was trained once more, how that compares with it."""


@dataclass(frozen=True)
class Means:
    """How entries are trained again on this machine."""

    workers: int | None = None
    allow_network: bool = False
    show: Watch | None = None
    again: bool = False
    """Train existing entries once more and compare; no entry is written."""


def find_edition(entries: Path, name: str, variant: Path | None = None) -> tuple[Edition, Split]:
    """The closed edition of that name, and its variant: the board's own copy, or the folder named.

    Raises RunError where there is no such edition, its copy has no policy, or the folder is not its variant.
    """
    known = {edition.name: edition for edition in editions(entries)}
    if name not in known:
        raise RunError(
            f"there is no edition {name!r:.80}; there are {', '.join(known) or 'none'}: `unlearnbench leaderboard "
            "close` makes one"
        )
    edition = known[name]
    if edition.variant is None or edition.drawn_from is None:
        raise RunError(f"edition {name} has no sealed variant, so nothing is trained again on it")
    split = load_split(variant or edition_folder(entries, name))
    if edition.split_hash != split.hash:
        raise RunError(
            f"{split.path} has the labels {split.hash[:12]}, and edition {name} has {edition.split_hash[:12]}; "
            "leave --split out, or name the folder that the edition was closed with"
        )
    if not (split.path / split.config.base_policy.path).is_dir():
        raise RunError(
            f"{split.path} has no policy, so nothing can be trained on it; name with --split the folder that edition "
            f"{name} was closed with"
        )
    return edition, split


def ordered(entries: Path, ids: Sequence[str], edition: Edition) -> list[BoardEntry]:
    """The entries named, or all that take part: those that the edition was closed with, the smaller budgets first.

    Raises RunError for an unknown id.
    """
    found = {one.entry.id: one for one in read_entries(entries)}
    if unknown := [name for name in ids if name not in found]:
        raise RunError(f"there is no entry {unknown[0]!r:.80} in {entries}; there are {', '.join(sorted(found))}")
    if ids:
        return [found[name] for name in ids]
    return sorted(
        (found[name] for name in taking_part(entries) if _held(found[name], edition, "entry.json") is not None),
        key=lambda one: (one.result.budget.multiple or 0.0, one.entry.id),
    )


def retrain_entry(
    one: BoardEntry, edition: Edition, split: Split, out: Path, entries: Path = ENTRIES, means: Means | None = None
) -> Outcome:
    """Train one entry again and write the entry that it makes; the run is in `out`/<id>."""
    name, means = one.entry.id, means or Means()
    try:
        again = take_part(one, edition, split)
        there = _made_before(again, edition, entries, split)
        if there is not None and not means.again:
            return Outcome(name, there, before=True)
        _require_files(again, split)
        folder = out / name
        kept = edition_folder(entries, edition.name)
        _train(again, split, folder, kept if kept.is_dir() and not kept.samefile(split.path) else None, means)
        if there is None:
            return Outcome(name, enter_run(again, edition, split, folder, entries, means.workers))
        run = read_run(folder / "run")
        sides = [Trained.of(split, of.result, of.counts) for of in (there, run)]
        words, refuted = difference(sides[0], sides[1], split)
        return Outcome(name, None if refuted else there, before=True, why=words)
    except UnlearnBenchError as problem:
        return Outcome(name, why=str(problem))


# --- what takes part ------------------------------------------------------------------------------------------


def _held(one: BoardEntry, edition: Edition, *names: str) -> list[bytes] | None:
    """Files of an entry in the closing commit; None if one is missing there.

    Earlier commits have all files of an entry in the folder above.
    """
    for folder in (".", ".."):
        found = []
        for name in names:
            home = ".." if name == one.entry.source else folder
            content = git(one.folder, "cat-file", "blob", f"{edition.drawn_from}:{home}/{name}")
            if content is None:
                break
            found.append(content)
        else:
            return found
    return None


def take_part(one: BoardEntry, edition: Edition, split: Split) -> Again:
    """The entry as the closing commit holds it. Raises RunError where it is not in there, or cannot take part."""
    entry = one.entry
    if entry.tier == "re-trained":
        raise RunError(f"it is re-trained itself; name {entry.trained_from or 'the entry it came from'}")
    if entry.withdrawn is not None:
        raise RunError(f"it is withdrawn: {entry.withdrawn}")
    commit = str(edition.drawn_from)
    if git(one.folder, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise RunError(f"commit {commit[:12]}, which closed edition {edition.name}, is not here; fetch it")
    held = _held(one, edition, "result.json", "entry.json", entry.source)
    if held is None:
        raise RunError(
            f"it was not there when edition {edition.name} was closed (commit {commit[:12]}); it takes part in the "
            "next one"
        )
    stated, told, source = held
    try:
        claimed, then = Result.model_validate_json(stated), Entry.model_validate_json(told)
    except ValidationError as error:
        raise RunError(f"a file of {one.folder} is malformed in commit {commit[:12]} ({error.title})") from error
    if hashlib.sha256(source).hexdigest() != claimed.method.source_hash:
        raise RunError(f"{one.source} is not the source that result.json names (its hash differs)")
    if claimed.kind != "eval" or claimed.budget.multiple is None or not claimed.comparable:
        raise RunError("it is not a comparable run of `eval`, so there is nothing to train again")
    seeds = retraining_seeds(claimed.method.source_hash, split.hash)
    return Again(one, source, claimed, seeds, f"{entry.id}-{edition.name.lower()}", then)


def _made_before(again: Again, edition: Edition, entries: Path, split: Split) -> BoardEntry | None:
    """The re-trained entry, if it is there and of this very source, split and seeds."""
    folder = entries / again.one.entry.id / edition.name
    if not (folder / "entry.json").is_file():
        return None
    found = read_entry(folder)
    one, other = (
        (of.method.source_hash, of.split_hash, list(of.seeds), of.budget.multiple, of.samples)
        for of in (found.result, again.claimed.model_copy(update={"split_hash": split.hash, "seeds": again.seeds}))
    )
    if one != other or found.entry.tier != "re-trained":
        raise RunError(f"{folder} holds another entry than the one trained again from {again.one.entry.id}; remove it")
    return found


def _require_files(again: Again, split: Split) -> None:
    multiple = again.claimed.budget.multiple
    null = split.control("null_control", f"{multiple:g}x")
    if null is None or null.result is None:
        raise RunError(
            f"{split.path} has no null_control/{multiple:g}x yet, which it is scored against; when `make micro "
            f"SEED={split.config.seed}` has made it, run `leaderboard close` again"
        )
    for read in again.claimed.method.reads:
        if read in NEEDED and not (split.path / NEEDED[read]).is_file():
            raise RunError(
                f"it reads {read}, and {split.path} has no {NEEDED[read]}; when `make micro SEED={split.config.seed}` "
                "has made it, run `leaderboard close` again"
            )


# --- training and entering ------------------------------------------------------------------------------------


def _train(again: Again, split: Split, folder: Path, kept: Path | None, means: Means) -> None:
    """Train and evaluate the entry's source; `kept` is the board's own copy of the variant's labels."""
    claimed = again.claimed
    source = folder.resolve() / "method" / again.one.entry.source
    files.write_bytes(source, again.source)
    class_name, engine = again.then.class_name, Engine(again.then.sampler)
    recipe = split.config.recipe.model_dump(mode="json")
    if not means.allow_network:
        require_no_network()
    config = RunConfig(
        split=split,
        method=locate(f"{source}:{class_name}" if class_name else str(source)),
        seeds=tuple(again.seeds),
        samples=claimed.samples,
        multiple=claimed.budget.multiple or 1.0,
        # the entry's own settings, whatever the recipe of this split says
        settings={key: value for key, value in claimed.method.settings.items() if recipe.get(key) != value},
        engine=engine,
        hidden=() if kept is None else (kept,),
    )
    evaluate_run(config, folder.resolve() / "run", Compute(workers=means.workers, engine=engine), means.show)


def enter_run(
    again: Again, edition: Edition, split: Split, folder: Path, entries: Path, workers: int | None
) -> BoardEntry:
    """Bundle the run, verify the bundle and write the entry. Raises RunError with the reasons where it is refused."""
    before, path = again.one.entry, folder / "bundle.zip"
    there = read_run(folder / "run").result.seeds
    if list(there) != list(again.seeds):
        raise RunError(
            f"{folder / 'run'} holds a run of the seeds {', '.join(map(str, there))}, and {before.id} is trained again "
            f"with {', '.join(map(str, again.seeds))}; remove it"
        )
    statement = Statement(name=before.name, authors=before.authors, url=before.url, tried=before.tried)
    bundle = write_bundle(folder / "run", path, statement)
    reasons, checked = examine(path, split, workers=workers)
    if reasons or checked is None:
        told = "; ".join(f"{reason.check}: {reason.reason}" for reason in reasons[:3])
        raise RunError(f"{path} is refused, so it makes no entry: {told}")
    entry = Entry(
        id=again.id,
        name=before.name,
        authors=before.authors,
        url=before.url,
        tier="re-trained",
        edition=edition.name,
        tried=before.tried,
        source=before.source,
        bundle=bundle.sha256,
        class_name=again.then.class_name,
        sampler=again.then.sampler,
        trained_from=before.id,
    )
    return write_entry(entries, entry, checked, ref_of(path))
