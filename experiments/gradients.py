"""Gradient similarity between groups: at the base policy, at the end of GRPO, and after mid-training.

    python -m experiments.gradients                # makes the diagnoses that the page shows; it resumes

A diagnosis (`unlearnbench diagnose`) of each policy, with an adapter and with all weights, is kept in
build/experiments/similarity. The page shows those that are there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

from experiments.markdown import Section, blocks, or_dash, paragraph, table
from experiments.runs import Runs, collect
from experiments.sweep import RUNS
from unlearnbench.diagnosis.diagnose import diagnose
from unlearnbench.diagnosis.record import AucRecord, BlockRecord, SimilarityRecord
from unlearnbench.errors import UnlearnBenchError
from unlearnbench.io import tables
from unlearnbench.reports.formatting import cosine
from unlearnbench.splits import load_split

ITEMS = 100
ROLLOUTS = 20
SHOWN = ("easy", "learnable", "unlearnable")
PARAMETERS = {"lora": "adapter on q and v", "all": "all weights"}
START, END, MID = "base policy", "end of GRPO", "after mid-training"
AGREES = {True: "agrees", False: "differs", None: "cannot be said"}
HOLDS = {True: "holds", False: "does not hold", None: "cannot be said"}
Found = Mapping[tuple[str, str], SimilarityRecord]
"""By policy and choice of parameters."""


def policies(runs: Runs) -> dict[str, Path]:
    """The policies that are there: the base, GRPO's end (first seed), and the positive control's before its GRPO."""
    found = {START: Path(runs.split.policy_path), MID: runs.split.path / "positive_control" / "policy"}
    if (run := runs.methods.get("grpo")) is not None:
        found[END] = run.folder / str(run.result.seeds[0]) / "checkpoint"
    return {name: path for name, path in found.items() if (path / "config.json").is_file()}


def folder_of(runs: Runs, policy: str, kind: str) -> Path:
    """Where a diagnosis is kept."""
    return runs.folder / "similarity" / f"{policy.replace(' ', '-')}-{kind}"


def diagnose_all(runs: Runs, workers: int | None = None) -> None:
    """Make every diagnosis that can be made; those that are there are not made again."""
    for kind in PARAMETERS:
        for name, path in policies(runs).items():
            print(f"gradients: {name}, {PARAMETERS[kind]}", file=sys.stderr, flush=True)
            diagnose(
                path,
                runs.split,
                out=folder_of(runs, name, kind),
                items_per_group=ITEMS,
                rollouts_per_item=ROLLOUTS,
                parameters=kind,
                groups=SHOWN,
                workers=workers,
            )


def read_all(runs: Runs) -> dict[tuple[str, str], SimilarityRecord]:
    """The diagnoses that are there, of the present labels."""
    found = {}
    for kind in PARAMETERS:
        for name in (START, END, MID):
            path = folder_of(runs, name, kind) / "similarity.json"
            if path.is_file():
                record = tables.read_json_record(path, SimilarityRecord)
                if record.split_hash == runs.split.hash:
                    found[name, kind] = record
    return found


def section(found: Found, augmented: str) -> Section:
    """All pairs of groups at every policy, of all pairs of items and matched by skill; then the text `augmented`."""
    title = "Gradient similarity between groups"
    names = [name for name in (START, END, MID) if any((name, kind) in found for kind in PARAMETERS)]
    if not names:
        return Section(title, blocks("No diagnosis was made (`python -m experiments.gradients`).", augmented))
    tables_ = [
        blocks(f"{words[0].upper()}{words[1:]}:", _table(found, names, kind)) for kind, words in PARAMETERS.items()
    ]
    text = paragraph(
        f"`unlearnbench diagnose`: at most {ITEMS} items per group, {ROLLOUTS} correct rollouts of every item, drawn",
        "from the policy itself; mean raw cosines with 95 % intervals over items. Items with fewer correct rollouts",
        "take no part. A low reliability makes a low cosine by itself: a raw cosine is expected to be the true one",
        "times the root of both groups' reliabilities. AUC: how well similarity to the other items separates",
        "learnable from unlearnable ones (0.5 is chance), over all pairs and over pairs of different skills. The",
        "policy at the end of GRPO is that of the first seed.",
    )
    return Section(title, blocks(text, *tables_, augmented))


def block(record: SimilarityRecord, a: str, b: str, of: str = "all") -> BlockRecord | None:
    """The block of two groups, of all pairs or of those of one skill or of two; None where there is none."""
    rows = record.blocks if of == "all" else [one for one in record.matched if one.of == of]
    return next((one for one in rows if {one.a, one.b} == {a, b}), None)


def _table(found: Found, names: Sequence[str], kind: str) -> str:
    records = [found.get((name, kind)) for name in names]
    rows = []
    for a, b in combinations_with_replacement(SHOWN, 2):
        for of in ("all", "same_skill", "other_skills"):
            cells = [None if record is None else block(record, a, b, of) for record in records]
            if any(cell is not None for cell in cells):
                rows.append([f"{a}, {b}", of.replace("_", " "), *map(_cosine, cells)])
    rows.append(["AUC", "all", *(_auc(None if one is None else one.auc) for one in records)])
    rows.append(["AUC", "other skills", *(_auc(None if one is None else one.auc_other_skills) for one in records)])
    kept = ["-" if one is None else ", ".join(str(one.groups.count(group)) for group in SHOWN) for one in records]
    rows.append([f"items: {', '.join(SHOWN)}", "", *kept])
    rows.append(["median reliability", "", *map(_reliability, records)])
    return table(["groups", "pairs", *names], rows, left=2)


def _cosine(one: BlockRecord | None) -> str:
    if one is None or one.raw is None:
        return "-"
    ends = "" if one.interval is None else f" ({cosine(one.interval[0])} to {cosine(one.interval[1])})"
    return cosine(one.raw) + ends


def _auc(auc: AucRecord | None) -> str:
    if auc is None:
        return "-"
    return f"{auc.value:.2f}" + ("" if auc.interval is None else f" ({auc.interval[0]:.2f} to {auc.interval[1]:.2f})")


def _reliability(record: SimilarityRecord | None) -> str:
    if record is None:
        return "-"
    median = {row.group: row.median for row in record.reliability}
    return ", ".join(or_dash(median.get(group), "{:.2f}".format) for group in SHOWN)


def claims(found: Found) -> list[tuple[str, str, str, str, str, str]]:
    """Rows of the table of claims: whether unlearnable items are outliers, by all pairs and by pairs of one skill."""
    rows = []
    for place in (START, END):
        for kind, words in PARAMETERS.items():
            record = found.get((place, kind))
            claim = f"unlearnable items' gradients are unlike those of the learnable ({place}, {words})"
            if record is None:
                rows.append((claim, "all", "not measured", "-", "not measured", "-"))
                continue
            (theirs, apart), (ours, matched) = (_outliers(record, of) for of in ("all", "same_skill"))
            rows.append((claim, "all", theirs, AGREES[apart], f"pairs of one skill: {ours}", HOLDS[matched]))
    return rows


def _outliers(record: SimilarityRecord, of: str) -> tuple[str, bool | None]:
    """Whether learnable with unlearnable lies below learnable with learnable: True where the intervals are apart, False
    where it does not lie below, None for what is between, or missing."""
    alone, between = (block(record, "learnable", other, of) for other in ("learnable", "unlearnable"))
    if alone is None or between is None or alone.interval is None or between.interval is None:
        return "too few items", None
    cell = f"cosine of learnable with unlearnable {_cosine(between)}, of the learnable {_cosine(alone)}"
    return cell, _apart(between, alone)


def _apart(low: BlockRecord, high: BlockRecord) -> bool | None:
    """True: the interval of `low` lies below that of `high`; False: its value does not; None: neither."""
    assert low.interval is not None and high.interval is not None and low.raw is not None and high.raw is not None
    if low.interval[1] < high.interval[0]:
        return True
    return False if low.raw >= high.raw else None


def raised(found: Found) -> tuple[str, str]:
    """Whether mid-training raises the similarity of unlearnable with learnable items: intervals apart; all weights
    where that was measured, else the adapter."""
    for kind in reversed(PARAMETERS):
        if (START, kind) in found and (MID, kind) in found:
            before, after = (block(found[name, kind], "learnable", "unlearnable") for name in (START, MID))
            if before is None or after is None or before.interval is None or after.interval is None:
                return "too few items", "cannot be said"
            cell = f"cosine with the learnable {_cosine(before)}, then {_cosine(after)} ({PARAMETERS[kind]})"
            return cell, AGREES[_apart(before, after)]
    return "not measured", "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the runs [default: build/experiments]")
    parser.add_argument("--split", default="micro", help="name or folder of the split [default: micro]")
    parser.add_argument("--workers", type=int, help="processes [default: one per core]")
    given = parser.parse_args()
    try:
        diagnose_all(collect(given.runs, load_split(given.split)), given.workers)
    except UnlearnBenchError as problem:
        sys.exit(str(problem))


if __name__ == "__main__":
    main()
