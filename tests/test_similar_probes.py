"""Probes of a split without twins: similar problems that curation measured, and that no method gets any more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from independent import Reading

from unlearnbench.curation.similar_probes import CANDIDATES, candidates, held_out, read_related
from unlearnbench.curation.validate import validate
from unlearnbench.errors import RunError
from unlearnbench.harness.privileged import Privileged
from unlearnbench.io import tables
from unlearnbench.records import Item, Pool, RelatedProblem, SplitConfig, Twin
from unlearnbench.scoring.conversion_rule import rule_sentence
from unlearnbench.scoring.probes import probes_are_similar, probes_of
from unlearnbench.splits import Split, write_split
from unlearnbench.splits.write import write_config
from unlearnbench.verifier import Verifier
from unlearnbench.workers import process

HEAD, TAIL = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
PROSE = "because the sum of two even numbers is always even and so is the product"


def item(name: str, text: str) -> Item:
    return Item(item_id=name, prompt=f"{HEAD}{text}{TAIL}", answer="3", family="f", group="unlearnable")


def similar(name: str, number: int, text: str, **changes: Any) -> RelatedProblem:
    row = {"problem_id": f"{name}-{number}", "item_id": name, "prompt": text, "answer": str(number + 10)}
    return RelatedProblem(**row | changes)


ITEMS = [item("a", "What is 1 + 2?"), item("b", "Which number is 2 less than 5?")]
ROWS = [
    similar("a", 0, "What is 1 + 2?", leaked=True),
    similar("a", 1, "Why is it even?", answer=PROSE),
    similar("a", 2, "What is 5 + 7?"),
    similar("b", 0, "What is  5 + 7?"),  # as the one before it
    similar("a", 3, "Which number is 2 less  than 5?"),  # the other item's text
    *(similar("a", number, f"What is {number} + {number}?") for number in range(4, 10)),
    similar("nobody", 0, "What is 8 + 9?"),
    similar("b", 1, "Which number is 4 less than 9?"),
]


def test_candidates_are_the_first_four_that_may_be_asked() -> None:
    with Verifier() as verifier:
        found = candidates(ITEMS, {"similar": ROWS, "sub_problems": ROWS}, verifier)
    assert CANDIDATES == 4
    assert [(twin.item_id, twin.twin_id) for twin in found] == [
        ("a", "a-2"),
        ("a", "a-4"),
        ("a", "a-5"),
        ("a", "a-6"),
        ("b", "b-1"),
    ]
    assert found[0].prompt == f"{HEAD}What is 5 + 7?{TAIL}" and found[0].answer == "12"
    assert {twin.kind for twin in found} == {"same_skill"} and not any(twin.probe for twin in found)


def test_a_probe_and_what_repeats_it_are_held_out() -> None:
    probe = Twin(twin_id="a-2", item_id="a", kind="same_skill", prompt=f"{HEAD}What is 5 + 7?{TAIL}", answer="12")
    steps = [similar("a", 20, "What is 5 + 7 ?"), similar("a", 21, "What is 5 + 8?")]
    found = held_out({"similar": ROWS, "sub_problems": steps}, [probe])
    assert {row.problem_id for row in found["similar"] if row.leaked} == {"a-0", "a-2", "b-0"}
    assert [row.leaked for row in found["sub_problems"]] == [True, False]
    unchanged = held_out({"similar": ROWS}, [])
    assert unchanged == {"similar": ROWS}


def test_the_rule_names_what_the_probe_is() -> None:
    assert "the item's probe, a held-out generated similar problem, in the same seed" in rule_sentence(
        32, 0.1, 5, 5, similar=True
    )
    assert "a held-out problem of the same skill with other numbers" in rule_sentence(32, 0.1, 5, 5)


@pytest.fixture(scope="module")
def curated(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The small split's problems labelled anew from a pool without twins, with similar problems beside it."""
    from unlearnbench import curate

    pool = tmp_path_factory.mktemp("pool")
    shutil.copytree(small_split.path / "policy", pool / "policy")
    samples = small_split.config.protocol.samples.model_copy(
        update={"base": 24, "after": 24, "certify": 0, "base_fresh": 8, "twins": 64}
    )
    protocol = small_split.config.protocol.model_copy(update={"runs": 1, "samples": samples})
    config = small_split.config.model_copy(
        update={"name": "without-twins", "protocol": protocol, "files": {}, "pool": Pool()}
    )
    blank = {"group": None, "certified": None, "thin": False}
    write_split(
        pool,
        config,
        [one.model_copy(update=blank) for one in small_split.items],
        related=read_related(small_split.path),
    )
    write_config(pool, config)  # a pool as a user writes it: without hashes
    return curate(pool / "split.yaml", pool / "labelled")


def test_curation_takes_the_first_eligible_similar_problem(curated: Split, small_split: Split, tmp_path: Path) -> None:
    assert validate(curated.path) == []
    given = read_related(small_split.path)
    unlearnable, probes = curated.ids("unlearnable"), probes_of(curated)
    assert unlearnable and probes and probes_are_similar(curated)
    assert [twin.twin_id for twin in curated.twins] == list(probes.values())  # no other candidate is a twin
    assert {twin.kind for twin in curated.twins} == {"same_skill"}
    reading = Reading(curated.path)
    assert probes == reading.probes()
    counts = curated.twin_counts()
    assert counts is not None
    measured = set(counts["twin_id"].to_pylist())
    assert set(probes.values()) < measured
    rows = [row for row in given["similar"] if row.item_id in unlearnable]
    first = {name: [row.problem_id for row in rows if row.item_id == name][:CANDIDATES] for name in unlearnable}
    assert measured == {name for names in first.values() for name in names}

    kept = read_related(curated.path)
    assert {row.problem_id for row in kept["similar"] if row.leaked} >= set(probes.values())
    assert len(kept["similar"]) == len(given["similar"]) and "similar.parquet" in curated.config.files
    privileged = Privileged(curated, tmp_path)
    with Verifier() as verifier:
        for name, probe in probes.items():
            shown = privileged.ask("similar", name, None, verifier)
            assert probe not in [number for number, _ in shown]
            assert curated.twins[list(probes).index(name)].prompt not in [prompt for _, prompt in shown]
    asked = {name for name, _, _ in curated.problems("twin")}
    assert asked == set(probes.values())


def test_a_finished_curation_starts_no_process_again_and_another_seed_is_refused(
    curated: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unlearnbench import curate

    def never(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(process, "LocalProcess", never)
    pool = Path(shutil.copytree(curated.path.parent, tmp_path / "pool"))
    assert curate(pool / "split.yaml", pool / "labelled").hash == curated.hash
    config = tables.read_yaml_record(pool / "split.yaml", SplitConfig)
    write_config(pool, config.model_copy(update={"seed": 99}))
    with pytest.raises(RunError, match="of another pool, policy, protocol or sampler"):
        curate(pool / "split.yaml", pool / "labelled")
    assert Split(pool / "labelled").hash == curated.hash


def test_another_probe_than_the_first_eligible_one_is_found(curated: Split, tmp_path: Path) -> None:
    shutil.copytree(curated.path, tmp_path / "copy", ignore=shutil.ignore_patterns(".curation"))
    split = Split(tmp_path / "copy")
    name, probe = next(iter(probes_of(split).items()))
    rows = read_related(split.path)["similar"]
    other = next(row for row in rows if row.item_id == name and row.problem_id != probe)
    twins = [
        twin.model_copy(update={"twin_id": other.problem_id, "prompt": other.prompt, "answer": other.answer})
        if twin.item_id == name
        else twin
        for twin in split.twins
    ]
    tables.write_records(split.path / "twins.parquet", twins, Twin)
    told = "\n".join(validate(split.path))
    assert f"the probe of item {name!r} is {other.problem_id!r}, and by twin_counts.parquet its first" in told
    assert f"{other.problem_id!r} is a twin, so this must be true" in told
