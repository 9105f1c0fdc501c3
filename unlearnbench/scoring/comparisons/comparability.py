"""Whether runs may be compared: every setting that differs between them and could move the score, and what it means.

A difference is `unfair` (the runs were measured by different rules, so their difference is not a method's), `intended`
(the methods and their settings, which a comparison is about) or `harmless` (it is told, and moves no rate on
average). docs/guide/compare.md says which is which, and why.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import tables
from unlearnbench.records import Record, Result, SpentBudget

BASE = "the split's base"
Meaning = Literal["unfair", "intended", "harmless"]


class Difference(Record):
    """A setting that is not the same in all runs; `values` has one entry a run, None where it is unknown."""

    setting: str
    meaning: Meaning
    values: Sequence[Any]
    why: str


@dataclass(frozen=True)
class Finished:
    """The folder of a scored run, or of a split's control, which has result.json and counts.parquet only."""

    folder: Path
    result: Result

    @cached_property
    def counts(self) -> pa.Table:
        """Raises DataError if counts.parquet is missing or malformed."""
        return tables.read_counts(self.folder / "counts.parquet")

    @cached_property
    def configuration(self) -> Mapping[str, Any]:
        """What the first seed's config.json says; empty where there is none."""
        return self._of_first_seed("config.json")

    @property
    def start(self) -> str | None:
        """Hash of the policy that training began from, or that it was the split's base; None where that is unknown."""
        if self.result.method.track != "base":
            return BASE
        return (self.configuration.get("start") or BASE) if self.configuration else None

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Versions and machine as the first seed's environment.json names them; empty where there is none."""
        told = dict(self._of_first_seed("environment.json"))
        told.pop("sealed_by", None)
        packages = told.pop("packages", None)
        return {**told, **packages} if isinstance(packages, dict) else told

    def _of_first_seed(self, name: str) -> Mapping[str, Any]:
        path = self.folder / str(self.result.seeds[0]) / name if self.result.seeds else self.folder / name
        if not path.is_file():
            return {}
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} is not readable JSON ({error}); give the same `eval` command again") from error
        if not isinstance(told, dict):
            raise DataError(f"{path}: a JSON object was expected; give the same `eval` command again")
        return told


def read_run(folder: Path) -> Finished:
    """The run in `folder`. Raises RunError if it was never scored, DataError if its result.json is malformed."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}; give the folder of a finished run (--out of `eval`)")
    if not (folder / "result.json").is_file():
        raise RunError(f"{folder} has no result.json; give the folder of a finished run (--out of `eval`)")
    return Finished(folder, tables.read_json_record(folder / "result.json", Result))


def differences(runs: Sequence[Finished]) -> list[Difference]:
    """What is not the same in all runs: the unfair first, then what the comparison is about, then the harmless."""
    found = []
    for rule in _RULES:
        values = [rule.value(run) for run in runs]
        # What is unknown is no difference, unless the comparison would rest on it.
        if _differ(values if rule.meaning == "unfair" else [value for value in values if value is not None]):
            found.append(Difference(setting=rule.setting, meaning=rule.meaning, values=values, why=rule.why))
    return found + _settings(runs) + _environment(runs)


def require_fair(runs: Sequence[Finished]) -> list[Difference]:
    """The differences, if the runs may be compared. Raises RunError naming the first unfair pair, and all that differs.

    A run that is not comparable with anything (quick, partial, too few samples) is refused with its own reason.
    """
    for run in runs:
        if not run.result.comparable:
            why = (run.result.why_not_comparable or "its result.json does not say why").rstrip(".")
            raise RunError(
                f"{run.folder} cannot be compared with other runs: {why}; `compare --pilot` shows rates without a claim"
            )
    for place, first in enumerate(runs):
        for second in runs[place + 1 :]:
            unfair = [rule for rule in _RULES if rule.meaning == "unfair" and rule.value(first) != rule.value(second)]
            if unfair:
                named = ", ".join(
                    f"{rule.setting} ({_short(rule.value(first))} and {_short(rule.value(second))})" for rule in unfair
                )
                remedies = "; ".join(dict.fromkeys(rule.remedy for rule in unfair))
                raise RunError(
                    f"{first.folder} and {second.folder} cannot be compared, since they differ in {named}: {remedies}"
                )
    return differences(runs)


# --- what is looked at ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    setting: str
    meaning: Meaning
    value: Callable[[Finished], Any]
    why: str
    remedy: str = ""


def _minor(version: Any) -> str | None:
    """major.minor, which a change of rules or labels raises (CHANGELOG.md); None for an unknown version."""
    return ".".join(version.split(".")[:2]) if isinstance(version, str) and version else None


def _trained_by(run: Finished) -> str | None:
    return _minor(run.environment.get("unlearnbench")) or _minor(run.result.code_version)


def _budget(spent: SpentBudget) -> str | None:
    """The multiple and the limit that it makes; None for runs whose training was not metered."""
    if spent.multiple is None:
        return None
    return f"{spent.multiple:g}x" + ("" if spent.limit is None else f", {spent.limit:.4g} FLOPs per seed")


_RESCORE = "rerun the older run's `eval` command, which scores its files again"
_RULES = (
    _Rule(
        "split",
        "unfair",
        lambda run: f"{run.result.split} {run.result.split_hash[:12]}",
        "other problems, labels or base policy",
        "evaluate both on the same split",
    ),
    _Rule(
        "track",
        "unfair",
        lambda run: run.result.method.track,
        "what the methods were allowed to know",
        "compare runs of one track (docs/reference/tracks.md)",
    ),
    _Rule(
        "samples",
        "unfair",
        lambda run: run.result.samples,
        "with fewer samples an item is converted by chance more often",
        "evaluate both with the same --samples",
    ),
    _Rule(
        "sampling",
        "unfair",
        lambda run: run.result.sampling.model_dump(),
        "another temperature, top-p or length draws other answers from the same policy",
        "evaluate both by the sampling in the split's split.yaml",
    ),
    _Rule(
        "budget",
        "unfair",
        lambda run: _budget(run.result.budget),
        "more compute converts more",
        "give both the same --budget",
    ),
    _Rule(
        "scorer version",
        "unfair",
        lambda run: run.result.scorer_version,
        "another rule of what counts as correct or converted",
        _RESCORE,
    ),
    _Rule(
        "version of the rules",
        "unfair",
        _trained_by,
        "major.minor of unlearnbench: another loop, verifier or labels",
        "train the older run again with this version",
    ),
    _Rule(
        "kind",
        "unfair",
        lambda run: run.result.kind,
        "rollouts that this harness did not draw may come from another sampling",
        "evaluate both by `eval --checkpoint`",
    ),
    _Rule("method", "intended", lambda run: run.result.method.name, "the comparison is about it"),
    _Rule("method source", "intended", lambda run: run.result.method.source_hash[:12], "SHA-256 of the method's file"),
    _Rule(
        "start",
        "intended",
        lambda run: run.start,
        "policy that training began from (SHA-256); within track base, part of the method",
    ),
    _Rule(
        "number of seeds",
        "harmless",
        lambda run: len(run.result.seeds),
        "shares are means over seeds, so any number means the same; fewer seeds give wider intervals",
    ),
    _Rule(
        "seeds", "harmless", lambda run: list(run.result.seeds), "other draws; seeds are not paired in the intervals"
    ),
    _Rule(
        "purpose",
        "harmless",
        lambda run: run.configuration.get("purpose"),
        "random streams of another purpose: other draws of the same distribution",
    ),
    _Rule(
        "sampler",
        "harmless",
        lambda run: run.configuration.get("sampler", {"name": "transformers"})["name"] if run.configuration else None,
        "other draws of the same distribution, up to the engine's rounding (docs/guide/at-scale.md)",
    ),
    _Rule(
        "null control",
        "harmless",
        lambda run: run.result.conversion.null_hash[:12] if run.result.conversion.null_hash else None,
        "what each result.json was scored against; the differences here use the runs' own counts only",
    ),
    _Rule("code version", "harmless", lambda run: run.result.code_version, "same major.minor, so the same rules"),
)


def _settings(runs: Sequence[Finished]) -> list[Difference]:
    """Settings of the methods that differ, including those that one of the methods does not have."""
    settings_of_runs = [run.result.method.settings for run in runs]
    names = list(dict.fromkeys(name for settings in settings_of_runs for name in settings))
    return [
        Difference(
            setting=f"setting {name}",
            meaning="intended",
            values=[settings.get(name) for settings in settings_of_runs],
            why="a setting of the method; the comparison is about it",
        )
        for name in names
        if _differ([settings.get(name) for settings in settings_of_runs])
    ]


def _environment(runs: Sequence[Finished]) -> list[Difference]:
    """Machine and versions. Runs that do not record them are mentioned once."""
    known = [run.environment for run in runs]
    names = list(dict.fromkeys(name for environment in known for name in environment))
    found = [
        Difference(
            setting=name,
            meaning="harmless",
            values=[told.get(name) for told in known],
            why="rounds otherwise, so other draws, but no other distribution",
        )
        for name in names
        if _differ([told.get(name) for told in known if told])
    ]
    if not all(known) and any(known):
        found.append(
            Difference(
                setting="environment",
                meaning="harmless",
                values=["told" if told else None for told in known],
                why="a folder without <seed>/environment.json does not say on what it ran",
            )
        )
    return found


def _differ(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return "unknown" if value is None else str(value)
