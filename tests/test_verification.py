"""Bundles from outside: honest ones are verified, and every altered number, gap and false claim is refused by name."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_bundle import (
    STEPS,
    TOKENS,
    Members,
    Refused,
    in_json,
    in_table,
    make_bundle,
    make_run,
    members_of,
    retold,
    told,
)
from slow_parameters import but_first_slow

from unlearnbench.errors import DataError, RunError
from unlearnbench.io import tables
from unlearnbench.leaderboard.bundles.bundle import Statement
from unlearnbench.leaderboard.bundles.opening import open_bundle
from unlearnbench.leaderboard.bundles.tables import LEDGER, Sizes, read_tables
from unlearnbench.leaderboard.bundles.writing import write_bundle
from unlearnbench.leaderboard.verification import verify_bundle
from unlearnbench.records import Result
from unlearnbench.splits import Split, load_split

ITEM, OTHER = [item.item_id for item in load_split("micro").items if item.group == "easy"][:2]


@pytest.mark.slow  # tests/test_remeasured.py has one of one seed
def test_an_honest_bundle_is_measured_again_and_gives_the_same_result(
    made_bundle: Path, made_run: Path, made_split: Split
) -> None:
    found = verify_bundle(made_bundle, made_split, workers=2)
    assert (found.verified, found.measured, found.rankable, list(found.reasons)) == (True, True, True, [])
    stated = tables.read_json_record(made_run / "result.json", Result)
    assert found.result == stated and found.agreement == "identical"
    assert stated.conversion.gain is not None and stated.conversion.gain > 0.1
    problems = sum(len(made_split.problems(phase)) for phase in ("eval", "twin", "canary"))
    assert found.rollouts == 3 * 32 * problems
    assert found.words.startswith("verified: ")


def test_the_same_run_gives_the_same_bytes(made_bundle: Path, made_run: Path, tmp_path: Path) -> None:
    assert make_bundle(made_run, tmp_path / "again.zip").read_bytes() == made_bundle.read_bytes()


def test_a_bundle_holds_what_its_numbers_rest_on(made_bundle: Path, made_run: Path) -> None:
    opened = open_bundle(made_bundle)
    assert opened.source == (made_run / "1" / "method.py").read_bytes()
    assert set(opened.seeds) == {1, 2, 3}
    sizes = Sizes(texts={"completion": 1000}, values={"token_ids": 100})
    read = read_tables(made_bundle, opened.archive.members, sizes)
    ledger = read["ledger.parquet"].to_pylist()
    cost = tables.read_json_record(made_run / "2" / "cost.json", type(opened.seeds[2].cost)).flops
    assert [row["flops"] for row in ledger if row["seed"] == 2] == [cost * k // STEPS for k in range(1, STEPS + 1)]
    assert all(row["tokens"] == TOKENS * row["rollouts"] for row in ledger)
    assert read["ledger.parquet"].schema.names == LEDGER.names
    assert sum(read["visits.parquet"]["rollouts"].to_pylist()) == sum(row["rollouts"] for row in ledger)
    weights = made_run / "3" / "checkpoint" / "model.safetensors"
    assert members_of(made_bundle)["seeds/3/weights/model.safetensors"] == weights.read_bytes()
    assert all(seed.cost.cpu_seconds == 12.0 for seed in opened.seeds.values())


def test_a_quick_run_is_verified_and_not_rankable(made_split: Split, tmp_path: Path) -> None:
    made = make_run(tmp_path / "runs" / "quick", made_split, seeds=(1,), quick=True)
    found = verify_bundle(make_bundle(made, tmp_path / "quick.zip"), made_split, workers=1, measure=False)
    assert found.verified and not found.rankable
    assert "--quick" in found.notes[1]


def test_without_the_number_of_configurations_tried_nothing_is_ranked(
    made_run: Path, made_split: Split, tmp_path: Path
) -> None:
    made = make_bundle(made_run, tmp_path / "untold.zip", tried=None)
    found = verify_bundle(made, made_split, workers=1, measure=False)
    assert found.verified and not found.rankable
    assert "tried" in found.notes[1]


@pytest.mark.parametrize(("field", "value"), [("name", "two\nlines"), ("authors", ["a\rb"]), ("url", "https://a\nb")])
def test_a_statement_that_is_refused_leaves_no_file(made_run: Path, tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"field '{field}'"):
        make_bundle(made_run, tmp_path / "x.zip", **{field: value})
    assert list(tmp_path.iterdir()) == []


def test_a_run_whose_files_make_no_bundle_leaves_no_file(made_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(made_run, run)
    (run / "2" / "method.json").write_text("{}")
    with pytest.raises(DataError, match=r"member 'seeds/2/method.json', field 'name'"):
        make_bundle(run, tmp_path / "x.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_source_that_was_changed_since_is_not_bundled(made_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "my_algo.py"
    other.write_text("# another")
    with pytest.raises(RunError, match="not the source that was run"):
        write_bundle(made_run, tmp_path / "x.zip", Statement(name="x"), str(other))


# --- numbers --------------------------------------------------------------------------------------------------


def test_an_altered_rate(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r["groups"]["unlearnable"].update(rate_after=0.9))

    assert "'groups.unlearnable.rate_after': 0.9 is stated" in refused(change)["result"]


def test_an_altered_gain_and_interval(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r["conversion"].update(gain=0.99, interval_families=[0.9, 0.99]))

    assert "conversion.gain" in refused(change)["result"]


@pytest.mark.parametrize("measure", but_first_slow([False, True]))
def test_an_altered_verdict(made_bundle: Path, made_split: Split, tmp_path: Path, measure: bool) -> None:
    """Counts and result follow from it: only the verifier can tell."""

    def flip(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if not row["correct"])
        row["correct"] = True

    bundle = retold(made_bundle, tmp_path / "x.zip", made_split, flip)
    found = verify_bundle(bundle, made_split, workers=2, measure=measure)
    assert "is correct by the bundle and wrong by the verifier" in told(found)["verdicts"]


def test_counts_that_are_not_those_of_the_rollouts(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "counts.parquet", lambda rows: rows[0].update(correct=32))

    assert "32 of 32 correct stated" in refused(change)["counts"]


@pytest.mark.parametrize("name", ["n", "correct"])
def test_a_negative_count(refused: Refused, name: str) -> None:
    def change(members: Members) -> None:
        in_table(members, "counts.parquet", lambda rows: rows[5].update({name: -3}))

    assert "negative count" in refused(change)["counts"]


def test_a_negative_cost(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/2/cost.json", lambda c: c.update(flops=-1))

    assert "seeds/2/cost.json" in refused(change)["archive"]


def test_altered_fates(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r["fates"].update(held=r["fates"]["held"] + 1))

    assert "'fates.held'" in refused(change)["result"]


def test_a_null_control_that_is_not_the_boards_own(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r["conversion"].update(null_hash="0" * 64, null_rate=0.0))

    assert "conversion.null_" in refused(change)["result"]


# --- completeness ---------------------------------------------------------------------------------------------


def test_a_dropped_item(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: [row for row in rows if row["problem_id"] != ITEM])

    assert "by the run's configuration it has" in refused(change)["rollouts"]


def test_seeds_that_were_chosen_are_not_ranked(made_split: Split, tmp_path: Path) -> None:
    made = make_run(tmp_path / "runs" / "chosen", made_split, seeds=(2, 5, 9))
    found = verify_bundle(make_bundle(made, tmp_path / "chosen.zip"), made_split, workers=1, measure=False)
    assert found.verified and not found.rankable
    assert "[2, 5, 9]" in found.notes[1]


def test_an_item_dropped_and_another_one_twice(refused: Refused) -> None:
    def change(members: Members) -> None:
        def swap(rows: list[dict[str, Any]]) -> None:
            for row in rows:
                if row["problem_id"] == ITEM:
                    row["problem_id"] = OTHER

        in_table(members, "rollouts.parquet", swap)

    assert f"{ITEM!r} of seed 1 has 0 rollouts" in refused(change)["rollouts"]


def test_a_sample_twice(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: rows[0].update(sample=1))

    assert "sample" in refused(change)["rollouts"]


def test_a_foreign_item(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: rows[0].update(problem_id="mine"))

    assert "'mine'" in refused(change)["rollouts"]


def test_a_dropped_seed(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: [row for row in rows if row["seed"] != 3])
        for name in [name for name in members if name.startswith("seeds/3/")]:
            del members[name]

    assert "[1, 2, 3]" in refused(change)["configuration"]


def test_a_seed_dropped_from_everything_but_the_score(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: [row for row in rows if row["seed"] != 3])
        in_table(members, "counts.parquet", lambda rows: [row for row in rows if row["run"] != "3"])
        in_table(members, "visits.parquet", lambda rows: [row for row in rows if row["seed"] != 3])
        in_table(members, "ledger.parquet", lambda rows: [row for row in rows if row["seed"] != 3])
        for name in [name for name in members if name.startswith("seeds/3/")]:
            del members[name]
        in_json(members, "result.json", lambda r: r.update(seeds=[1, 2]))

    assert "'comparable': True is stated, and False follows" in refused(change)["result"]  # three seeds are asked for


def test_a_seed_stated_twice(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r.update(seeds=[1, 2, 2]))

    assert "[1, 2, 2]" in refused(change)["configuration"]


def test_no_seed_at_all(refused: Refused) -> None:
    def change(members: Members) -> None:
        for name in [name for name in members if name.startswith("seeds/")]:
            del members[name]
        in_json(members, "result.json", lambda r: r.update(seeds=[]))

    assert "field 'seeds'" in refused(change)["archive"]


def test_dropped_canaries(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_table(members, "rollouts.parquet", lambda rows: [row for row in rows if row["phase"] != "canary"])

    assert "rows" in refused(change)["rollouts"]


# --- what was claimed -----------------------------------------------------------------------------------------


def test_a_foreign_split_hash(made_bundle: Path, refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "result.json", lambda r: r.update(split_hash="f" * 64))

    assert "is not known here" in refused(change)["split"]
    assert "is not known here" in told(verify_bundle(made_bundle, workers=1))["split"]  # a split that is not shipped


def test_a_seed_of_another_split(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/2/config.json", lambda c: c.update(split_hash="e" * 64))

    assert "seeds/2/config.json, field 'split_hash'" in refused(change)["configuration"]


@pytest.mark.parametrize("purpose", ["null", "label/1"])
def test_streams_of_another_purpose(refused: Refused, purpose: str) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/1/config.json", lambda c: c.update(purpose=purpose))

    assert "purpose" in refused(change)["configuration"]


def test_a_track_lower_than_what_was_read(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/2/method.json", lambda m: m.update(reads=["solution"]))

    reasons = refused(change)
    assert "claims track verifier" in reasons["track"] and "solution" in reasons["track"]


def test_a_track_lower_than_what_the_parent_process_was_asked_for(refused: Refused) -> None:
    def change(members: Members) -> None:
        members["seeds/3/asked.json"] = b'["labels"]'

    assert "is labels" in refused(change)["track"]


def test_a_track_lower_than_what_the_source_declares(refused: Refused) -> None:
    def change(members: Members) -> None:
        name = next(name for name in members if name.startswith("method/"))
        members[name] = members[name].replace(b'track = "verifier"', b'track = "teacher"')
        digest = hashlib.sha256(members[name]).hexdigest()
        in_json(members, "result.json", lambda r: r["method"].update(source_hash=digest))
        for seed in (1, 2, 3):
            for file in ("config", "method"):
                in_json(members, f"seeds/{seed}/{file}.json", lambda c: c.update(source_hash=digest))

    assert "is teacher" in refused(change)["track"]


def test_another_source_than_the_one_that_was_run(refused: Refused) -> None:
    def change(members: Members) -> None:
        name = next(name for name in members if name.startswith("method/"))
        members[name] += b"\n# and more"

    assert "names the source" in refused(change)["source"]


def test_a_source_without_the_class_that_was_run(refused: Refused) -> None:
    def change(members: Members) -> None:
        in_json(members, "seeds/2/method.json", lambda m: m.update({"class": "Other"}))

    assert "names the class 'Other'" in refused(change)["source"]
