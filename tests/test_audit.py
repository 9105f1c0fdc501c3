"""`splits validate --audit` on small splits with planted faults, each found; and on the shipped micro."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from scipy import stats

from unlearnbench.cli.splits import splits as command
from unlearnbench.curation.audit.audit import audit
from unlearnbench.curation.audit.record import Audit
from unlearnbench.curation.audit.second_grader import SecondGrader, boxed
from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.io.rollout_store import BASE_ROLLOUTS, find_rollouts, read_stored, write_base_rollouts
from unlearnbench.records import Canary, Item, PolicyRef, Protocol, Rule, SplitConfig, Twin
from unlearnbench.scoring.labels import label_items
from unlearnbench.splits import Split, find_split, write_split

ROOT = Path(__file__).parents[1]
N = 32
GOLDS = {"core": "5", "easy": r"\frac{1}{2}", "guess": "12", "cut": "8"}

# completion, count, finish: 32 rollouts of each item
Rollouts = Sequence[tuple[str, int, str]]
ROLLOUTS: dict[str, Rollouts] = {
    "core": [(r"so \boxed{5}", 3, "stop"), (r"\boxed{6}", 24, "stop"), ("6", 5, "stop")],
    "easy": [(r"\boxed{0.5}", 20, "stop"), (r"\boxed{\dfrac{2}{4}}", 8, "stop"), (r"\boxed{2}", 4, "stop")],
    "guess": [(r"\boxed{9}", 20, "stop"), (r"\boxed{10}", 12, "stop")],
    "cut": [("3", 30, "length"), (r"\boxed{8}", 2, "stop")],
}
CORRECT = {"core": 3, "easy": 28, "guess": 0, "cut": 2}


def make(folder: Path, rollouts: dict[str, Rollouts] = ROLLOUTS, rule: Rule = "strict", core: str = "5") -> Split:
    """A valid split of four items with its base rollouts; `core`, whose gold is given, is unlearnable."""
    protocol = Protocol(verifier_rule=rule)
    rows: list[dict[str, object]] = []
    for item, correct in CORRECT.items():
        rows.append({"item_id": item, "phase": "base", "run": "0", "n": N, "correct": correct})
        for run in "123":
            after = N if item == "easy" else 0
            rows.append({"item_id": item, "phase": "after", "run": run, "n": N, "correct": after})
            rows.append({"item_id": item, "phase": "certify", "run": run, "n": 128, "correct": 0})
    counts = pa.Table.from_pylist(rows, schema=tables.COUNTS)
    labels = label_items(counts, protocol, item_ids=list(GOLDS))
    items = [
        Item(
            item_id=name,
            prompt=f"problem {name}",
            answer=gold,
            family="all",
            group=labels.group[place],
            certified=labels.certified[place],
            thin=bool(labels.thin[place]),
        )
        for place, (name, gold) in enumerate({**GOLDS, "core": core}.items())
    ]
    config = SplitConfig(name="planted", base_policy=PolicyRef(path="nobody/policy"), protocol=protocol)
    twins = [Twin(twin_id="twin", item_id="core", kind="same_skill", prompt="problem twin", answer="3")]
    canary = Canary(item_id="canary", prompt="problem canary", answer="4", true_answer="2", family="all")
    split = write_split(folder, config, items, twins=twins, canaries=[canary], counts=counts)
    write_rollouts(folder / "base.0.parquet", rollouts)
    write_base_rollouts(folder, [folder / "base.0.parquet"])
    (folder / "base.0.parquet").unlink()
    return split


def write_rollouts(path: Path, rollouts: dict[str, Rollouts], **more: Sequence[object]) -> Path:
    rows = [(item, *row) for item, of in rollouts.items() for row in of]
    columns: dict[str, Any] = {
        name: [row[place] for row in rows] for place, name in enumerate(("item_id", "completion", "count", "finish"))
    }
    if path.suffix == ".jsonl":
        table = pa.table(columns | more).to_pylist()
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    else:
        tables.write_parquet(path, pa.table(columns | more))
    return path


def changed(item: str, *rows: tuple[str, int, str]) -> dict[str, Rollouts]:
    return {**ROLLOUTS, item: rows}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Audit]:
    split = make(tmp_path_factory.mktemp("sound") / "planted")
    return split, audit(split.path)


# --- the figures ----------------------------------------------------------------------------------------------


def test_a_sound_split_has_no_problems(sound: tuple[Split, Audit]) -> None:
    split, found = sound
    assert [item.group for item in split.items] == ["unlearnable", "easy", "no_reward", "unlearnable"]
    assert found.problems == []
    assert found.split_hash == split.hash
    assert (found.golds.n, found.golds.unverified) == (4 + 1 + 3, 0)
    assert (found.rollouts, found.different) == (4 * N, sum(map(len, ROLLOUTS.values())))
    assert {name: of.accepted for name, of in found.groups.items()} == {
        "easy": 28,
        "unlearnable": 5,
        "no_reward": 0,
        "all": 33,
    }
    assert found.disagreements == []
    assert found.groups["all"].false_negatives.n == 33
    assert found.groups["all"].false_positives.n == 4 * N - 33
    assert found.labels_checked == 4
    assert found.stored is None


def test_the_most_frequent_answer_is_found(sound: tuple[Split, Audit]) -> None:
    _, found = sound
    assert [(told.item_id, told.answer, told.count, told.n, told.gold) for told in found.guessable] == [
        ("core", "6", 24, N, False),
        ("easy", "0.5", 20, N, True),
        ("guess", "9", 20, N, False),
    ]
    rates = [24 / N, 20 / N, 20 / N, 2 / N]
    guesses = found.groups["all"].guesses
    assert guesses.median == pytest.approx(np.median(rates))
    assert guesses.ninetieth == pytest.approx(np.quantile(rates, 0.9))
    assert (guesses.items, guesses.above_half, guesses.gold) == (4, 3, 2)


def test_items_that_fail_only_by_length_are_named(sound: tuple[Split, Audit]) -> None:
    _, found = sound
    assert found.only_truncated == ["cut"]
    assert (found.groups["unlearnable"].truncated.count, found.groups["unlearnable"].truncated.n) == (30, 2 * N)


def test_accepted_without_an_answer_under_the_rule_paper(tmp_path: Path) -> None:
    split = make(tmp_path, changed("core", ("5", 4, "stop"), (r"\boxed{5}", 3, "stop"), (r"\boxed{6}", 25, "stop")))
    told = audit(split.path).groups["unlearnable"].answerless
    assert (told.count, told.n) == (4, 4 + 3 + 2)
    assert told.interval == pytest.approx(
        (stats.beta.ppf(0.025, 4, 6), stats.beta.ppf(0.975, 5, 5)), rel=1e-9
    )  # Clopper and Pearson by the beta distribution


# --- disagreement ---------------------------------------------------------------------------------------------


def test_a_false_negative_that_would_move_a_label_sets_the_item_aside(tmp_path: Path) -> None:
    # The second grader knows no units, so five degrees are five dollars to it.
    planted = (r"hence \boxed{5^\circ}", 5, "stop")
    split = make(tmp_path, changed("core", (r"\boxed{5}", 3, "stop"), (r"\boxed{6}", 24, "stop"), planted), core=r"\$5")
    found = audit(split.path)
    (told,) = found.disagreements
    assert (told.item_id, told.verifier, told.second, told.count) == ("core", False, True, 5)
    assert told.completion == planted[0]
    negatives = found.groups["unlearnable"].false_negatives
    assert (negatives.count, negatives.n, negatives.rate) == (5, 3 + 5 + 2, 0.5)
    assert found.groups["easy"].false_negatives.count == 0
    (row,) = found.relabelled
    assert (row.item_id, row.group, row.group_second) == ("core", "unlearnable", "easy")
    assert (row.correct, row.correct_second, row.n) == (3, 8, N)
    (problem,) = found.problems
    assert "'core' is unlearnable" in problem
    assert "set it aside" in problem


def test_a_false_positive_is_counted(tmp_path: Path) -> None:
    # The rule `lenient` takes a final statement; the second grader wants a box.
    rollouts = changed("core", ("The answer is 5.", 1, "stop"), (r"\boxed{5}", 2, "stop"), (r"\boxed{6}", 29, "stop"))
    found = audit(make(tmp_path, rollouts, rule="lenient").path)
    positives = found.groups["unlearnable"].false_positives
    assert (positives.count, positives.n) == (1, 29 + 1 + 30)
    assert [(told.verifier, told.count) for told in found.disagreements] == [(True, 1)]
    assert found.relabelled == []  # two of 32 and three of 32 are both unlearnable
    assert found.problems == []


def test_what_the_second_grader_cannot_read_is_no_disagreement(tmp_path: Path) -> None:
    rollouts = changed("core", (r"\boxed{5}", 3, "stop"), (r"\boxed{6\text{ cm}}", 29, "stop"))
    found = audit(make(tmp_path, rollouts).path)
    assert (found.groups["unlearnable"].unknown.count, found.disagreements) == (29, [])


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("1,000", "1000", True),
        (r"\frac{1}{3}", "0.333333", True),
        (r"\frac{1}{3}", "0.33", False),
        (r"3\frac{1}{2}", "3.5", True),
        ("-3", "3", False),
        (r"\text{Tuesday}", "tuesday", True),
        ("Tuesday", "Friday", False),
        (r"2\pi", r"\pi + \pi", True),
        (r"\sqrt{8}", r"2\sqrt{2}", True),
        (r"\sqrt{8}", r"2\sqrt{3}", False),
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x+2)^2", False),
        (r"(1,\frac12)", "(1, 0.5)", True),
        ("(1,2)", "(2,1)", False),
        ("1,2", "2,1", True),
        ("5", "x=5", True),
        (r"e^{i\pi}", "-1", True),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", False),
        ("5", r"5\text{ cm}", None),
        ("1", "__import__('os').abort()", None),
        ("7", "", False),
    ],
)
def test_the_second_grader(second: SecondGrader, gold: str, answer: str, expected: bool | None) -> None:
    assert second.grade(gold, rf"it is \boxed{{{answer}}}") is expected


@pytest.fixture(scope="module")
def second() -> Any:
    with SecondGrader(time_limit=60) as grader:  # a busy machine is no fault of the code
        yield grader


@pytest.mark.parametrize("answer", ["9^{9^{9^{9}}}", "((((9!)!)!)!)!"])
def test_a_text_without_end_is_unknown_and_the_next_is_graded(answer: str) -> None:
    with SecondGrader(time_limit=0.5) as grader:
        began = time.monotonic()
        assert grader.grade("3", rf"\boxed{{{answer}}}") is None
        assert time.monotonic() - began < 30  # a process had to be started
        assert grader.grade(r"\sqrt{9}", r"\boxed{\sqrt{4} + 1}") is True


def test_fractions_agree_with_the_second_grader_for_all_small_numbers(second: SecondGrader) -> None:
    small = sorted({Fraction(a, b) for a in range(-3, 4) for b in range(1, 4)})
    for one in small:
        for other in small:
            told = second.grade(rf"\frac{{{one.numerator}}}{{{one.denominator}}}", rf"\boxed{{{other}}}")
            assert told is (one == other), (one, other)


def test_the_last_box_that_closes_is_found_in_linear_time() -> None:
    assert boxed(r"\boxed{3}. Wait, \boxed{\frac{1}{2}} or \boxed{4") == r"\frac{1}{2}"
    assert boxed(r"\boxed{\{1\}}") == r"\{1\}"
    assert boxed("no box") is None
    began = time.monotonic()
    assert boxed(r"\boxed{" * 200_000) is None
    assert boxed(r"\boxed{1}" * 100_000) == "1"
    assert time.monotonic() - began < 10


def test_the_second_grader_shares_no_code_with_the_verifier() -> None:
    code = (
        "import sys, unlearnbench.curation.audit.second_grader;"
        "print(*(name for name in sys.modules if 'unlearnbench.' in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {"curation", "curation.audit", "curation.audit.second_grader", "io", "io.child"}  # how its process starts
    assert set(done.stdout.split()) == {f"unlearnbench.{name}" for name in ours}


def test_the_process_of_the_second_grader_ends_with_it() -> None:
    with SecondGrader() as grader:
        assert grader.grade(r"\sqrt{4}", r"\boxed{\sqrt{16}-\sqrt{4}}") is True
        assert grader._reader is not None
        pid = grader._reader._process.pid
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- stored verdicts and counts -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_wrong_stored_verdict_is_found(sound: tuple[Split, Audit], tmp_path: Path, form: str) -> None:
    split, _ = sound
    rows = {"core": ROLLOUTS["core"], "canary": [(r"\boxed{4}", 2, "stop"), (r"\boxed{2}", 1, "stop")]}
    true = [True, False, False, True, False]
    write_rollouts(tmp_path / f"after.0.{form}", rows, correct=true)
    tables.write_parquet(
        tmp_path / "twins.0.parquet",
        pa.table({"twin_id": ["twin", "twin"], "completion": [r"\boxed{3}", r"\boxed{4}"], "correct": [True, False]}),
    )
    found = audit(split.path, rollouts=[tmp_path])
    assert found.stored is not None
    assert (found.stored.files, found.stored.rows, found.stored.rollouts) == (2, 7, N + 3 + 2)
    assert (found.stored.differ, found.problems) == (0, [])
    assert found.rollouts == 4 * N  # the base rollouts are still the split's own

    write_rollouts(tmp_path / f"after.0.{form}", rows, correct=[True, True, None, True, False])
    found = audit(split.path, rollouts=[tmp_path])
    assert found.stored is not None
    assert (found.stored.differ, found.stored.without) == (24, 5)
    (told,) = found.stored.differences
    assert (told.problem_id, told.row, told.stored, told.correct, told.count) == ("core", 2, True, False, 24)
    assert told.answer == "6"
    (problem,) = found.problems
    assert "24 of 37 stored verdicts" in problem


def test_counts_that_are_not_the_rollouts_are_found(tmp_path: Path) -> None:
    split = make(tmp_path, changed("guess", (r"\boxed{12}", 1, "stop"), (r"\boxed{10}", 31, "stop")))
    (problem,) = audit(split.path).problems
    assert "phase 'base': 1 of 4 items" in problem
    assert "item 'guess', 0 stated, 1 found" in problem


def test_rollouts_of_other_sizes_are_not_held_against_the_counts(sound: tuple[Split, Audit], tmp_path: Path) -> None:
    other = write_rollouts(tmp_path / "mine.jsonl", {"core": [(r"\boxed{5}", 2, "stop"), (r"\boxed{6}", 2, "stop")]})
    found = audit(sound[0].path, rollouts=[other])
    assert (found.rollouts, found.labels_checked, found.problems) == (4, 1, [])


# --- files ----------------------------------------------------------------------------------------------------


def test_base_rollouts_are_written_the_same_each_time_and_change_no_hash(tmp_path: Path) -> None:
    split = make(tmp_path / "one")
    again = make(tmp_path / "two")
    assert (split.path / BASE_ROLLOUTS).read_bytes() == (again.path / BASE_ROLLOUTS).read_bytes()
    (again.path / BASE_ROLLOUTS).unlink()
    assert Split(again.path).hash == Split(split.path).hash
    with pytest.raises(DataError, match="name them with --rollouts"):
        audit(again.path)


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"item_id": "nobody", "completion": "x"}, r"row 2, field 'item_id': split planted has no item 'nobody'"),
        ({"item_id": "core"}, r"row 2, field 'completion': it is missing"),
        ({"item_id": "core", "completion": "x", "count": 0}, r"row 2, field 'count': it must be 1 or more"),
        ({"item_id": "core", "completion": "x", "count": "many"}, r"row 2, field 'count': a whole number from 0 was"),
        ({"item_id": "core", "completion": "\ud800"}, r"row 2, field 'completion': half of a surrogate pair"),
        ({"item_id": 7, "completion": "x"}, r"row 2, field 'item_id': split planted has no item '7'"),
    ],
)
def test_malformed_rows_are_named(
    sound: tuple[Split, Audit], tmp_path: Path, row: dict[str, object], error: str
) -> None:
    good = {"item_id": "core", "completion": "y"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=error):
        audit(sound[0].path, rollouts=[tmp_path / "rows.jsonl"])


def test_folders_are_searched_for_rollouts_and_other_files_left(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "a.parquet", {"core": ROLLOUTS["core"]})
    tables.write_parquet(tmp_path / "sub" / "counts.parquet", pa.table({"item_id": ["core"], "n": [1]}))
    assert [file.path.name for file in find_rollouts([tmp_path, tmp_path / "a.parquet"])] == ["a.parquet"]
    with pytest.raises(DataError, match="column 'completion' is missing"):
        find_rollouts([tmp_path / "sub" / "counts.parquet"])
    with pytest.raises(DataError, match="has no file of rows with item_id and completion"):
        find_rollouts([tmp_path / "sub"])


# --- the command, and micro -----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    split = make(tmp_path / "split")
    before = (split.path / BASE_ROLLOUTS).read_bytes()
    arguments = ["validate", str(split.path), "--audit"]
    run = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "audit.json")])
    assert (run.exit_code, run.stdout.splitlines()[-1]) == (0, "valid")
    assert "0 of 4 labels would differ" in run.stdout
    written = tables.read_json_record(tmp_path / "audit.json", Audit)
    assert (written.schema_version, written.rollouts) == (1, 4 * N)
    first = write_rollouts(tmp_path / "one.parquet", {"core": ROLLOUTS["core"]}, correct=[True, True, False])
    second = write_rollouts(tmp_path / "two.parquet", {"cut": ROLLOUTS["cut"]}, correct=[False, True])
    run = CliRunner().invoke(command, [*arguments, "--json", "--rollouts", str(first), str(second)])
    told = json.loads(run.stdout)
    assert (run.exit_code, told["valid"], len(told["problems"])) == (1, False, 1)
    assert told["audit"]["stored"]["files"] == 2
    assert told["audit"]["stored"]["differ"] == 24
    assert CliRunner().invoke(command, ["validate", str(split.path), "--rollouts", str(first)]).exit_code == 2
    assert CliRunner().invoke(command, ["validate", str(split.path), "one", "more"]).exit_code == 2
    assert (split.path / BASE_ROLLOUTS).read_bytes() == before


def test_the_shipped_rollouts_are_those_that_micro_was_counted_from() -> None:
    folder = find_split("micro")
    if not (folder / BASE_ROLLOUTS).is_file():
        pytest.skip("splits/micro is not made yet")
    (file,) = find_rollouts([folder / BASE_ROLLOUTS])
    totals: dict[tuple[str, str], int] = {}
    for batch in read_stored(file):
        for row in batch.rows.select(["problem_id", "phase", "count"]).to_pylist():
            key = (row["problem_id"], row["phase"])
            totals[key] = totals.get(key, 0) + row["count"]
    counts = tables.read_counts(folder / "counts.parquet").to_pylist()
    assert totals == {
        (row["item_id"], row["phase"]): row["n"] for row in counts if row["phase"] in ("base", "base_fresh")
    }


@pytest.mark.checkout
def test_the_page_of_the_verifier_has_the_audit_of_todays_micro() -> None:
    found = audit("micro")
    page = (ROOT / "docs/reference/verifier.md").read_text(encoding="utf-8")
    shown = {
        row[0]: row for row in re.findall(r"^\| (\w+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| (.+) \|$", page, re.MULTILINE)
    }
    for name in ("easy", "learnable", "unlearnable", "no_reward", "unstable"):
        group = found.groups[name]
        _, items, rollouts, accepted, rest = shown[name]
        wrong = [f"{share.count} of {share.n:,} (" for share in (group.false_negatives, group.false_positives)]
        assert (items, rollouts, accepted) == (str(group.items), f"{group.rollouts:,}", f"{group.accepted:,}")
        assert all(text in rest for text in wrong), name
        assert rest.endswith(f" | {group.guesses.above_half} | {group.guesses.gold}"), name
    assert f"All {found.golds.n:,} gold answers verify" in page and not found.golds.unverified
    assert f"{found.rollouts:,} base rollouts" in page and f"{found.different:,} different" in page
    assert not found.problems and not found.disagreements and not found.relabelled
