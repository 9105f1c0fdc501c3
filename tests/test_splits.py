"""A split from the outside: what is written is read, what was altered is refused, what is sealed tells nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from click.testing import CliRunner

from unlearnbench import splits, tables
from unlearnbench.audit import validate
from unlearnbench.cli.splits import splits as command
from unlearnbench.errors import DataError, SplitError
from unlearnbench.records import (
    GROUPS,
    TWIN_KINDS,
    BudgetRef,
    Canary,
    Conversion,
    Cost,
    CountOf,
    Item,
    MethodRecord,
    NaiveConversion,
    PolicyRef,
    Pool,
    Protocol,
    Result,
    Retention,
    Samples,
    Sampling,
    SpentBudget,
    SplitConfig,
    Twin,
)
from unlearnbench.splits import Split, find_split, load_split, seal, shipped_splits, write_split

# Correct rollouts in the phases base (of 32), train (80), after (32), certify (128): the last three for each run.
COUNTS = {
    "easy": (16, (40, 40, 40), (30, 30, 30), None),
    "learnable": (1, (20, 20, 20), (20, 20, 20), None),
    "unlearnable": (2, (6, 6, 6), (1, 1, 1), (4, 4, 4)),
    "no_reward": (0, (0, 0, 0), (0, 0, 0), None),
    "unstable": (1, (9, 9, 9), (20, 0, 0), None),
}
ROLLOUTS = {"base": 32, "train": 80, "after": 32, "certify": 128}


def config(**changes: Any) -> SplitConfig:
    given: dict[str, Any] = {
        "name": "tiny",
        "description": "two sums a group",
        "base_policy": PolicyRef(path="policy", parameters=10),
        "protocol": Protocol(runs=3, samples=Samples(base=32, after=32, certify=128)),
        "budget": BudgetRef(flops_1x=1000),
    }
    return SplitConfig(**given | changes)


def items() -> list[Item]:
    return [
        Item(
            item_id=f"item-{number:02}",
            prompt=f"sum {number} 5=",
            answer=str(number + 5),
            solution=f"{number}+5>\\boxed{{{number + 5}}}",
            family=f"family {number % 2}",
            group=group,
            certified=True if group == "unlearnable" else None,
            cause="skill",
        )
        for number, group in enumerate([group for group in COUNTS for _ in range(2)])
    ]


def twins() -> list[Twin]:
    return [
        Twin(
            twin_id=f"{item.item_id}/{kind}",
            item_id=item.item_id,
            kind=kind,
            prompt=f"twin {kind} of {item.prompt}",
            answer=item.answer,
        )
        for item in items()
        for kind in TWIN_KINDS
    ]


CANARIES = [Canary(item_id="item-03b", prompt="sum 90 9=", answer="98", true_answer="99", family="family 0")]


def counts() -> pa.Table:
    rows = []
    for item in items():
        base, *phases = COUNTS[str(item.group)]
        found: list[tuple[str, int, int]] = [("base", 1, base)]
        for phase, of_runs in zip(("train", "after", "certify"), phases, strict=True):
            found += [(phase, run, correct) for run, correct in enumerate(of_runs or (), start=1)]
        rows += [
            {"item_id": item.item_id, "phase": phase, "run": str(run), "n": ROLLOUTS[phase], "correct": correct}
            for phase, run, correct in found
        ]
    return pa.Table.from_pylist(rows, schema=tables.COUNTS)


def twin_counts() -> pa.Table:
    rows = [{"twin_id": twin.twin_id, "phase": "base", "run": "1", "n": 32, "correct": 1} for twin in twins()]
    return pa.Table.from_pylist(rows, schema=tables.TWIN_COUNTS)


def make(folder: Path, **changes: Any) -> Split:
    """A complete small split, without controls and without items in `boundary`."""
    for name, content in (
        ("model.safetensors", b"weights"),
        ("config.json", b"{}"),
        (".cache/x", b"not part of it"),
    ):
        tables.write_bytes(folder / "policy" / name, content)
    given: dict[str, Any] = {
        "config": config(),
        "items": items(),
        "twins": twins(),
        "canaries": CANARIES,
        "counts": counts(),
        "twin_counts": twin_counts(),
    }
    return write_split(folder, **given | changes)


def add_control(split: Split, place: str, **changes: Any) -> None:
    """The counts and the result of a control that nothing was converted in."""
    ids = [
        *(("eval", item.item_id) for item in split.items),
        *(("twin", twin.twin_id) for twin in split.twins),
        *(("canary", canary.item_id) for canary in split.canaries),
    ]
    rows = [
        {"item_id": identity, "phase": phase, "run": str(seed), "n": 32, "correct": 0}
        for phase, identity in ids
        for seed in (9, 10)
    ]
    tables.write_parquet(split.path / place / "counts.parquet", pa.Table.from_pylist(rows, schema=tables.COUNTS))
    given: dict[str, Any] = {
        "code_version": "0",
        "scorer_version": "0",
        "kind": "eval",
        "comparable": True,
        "why_not_comparable": None,
        "split": split.name,
        "split_hash": split.hash,
        "method": MethodRecord(name="grpo", source_hash="", track="verifier"),
        "seeds": (9, 10),
        "samples": 32,
        "sampling": Sampling(),
        "budget": SpentBudget(),
        "groups": {},
        "conversion": Conversion(
            gain=None,
            interval=None,
            interval_families=None,
            method_rate=0.0,
            null_rate=None,
            null_hash=None,
            null_seeds=0,
            strong_null_rate=None,
            rule="",
            scope=None,
            naive=NaiveConversion(any_seed=0.0, two_seeds=0.0),
            families={},
        ),
        "twins": {},
        "thin": CountOf(items=0, converted=0),
        "canaries": CountOf(items=1, converted=0),
        "fates": None,
        "retention": Retention(easy_items=2, easy_lost=0, easy_rate_change=0.0, interval=None),
        "cost": Cost(),
    }
    tables.write_json(split.path / place / "result.json", Result(**given | changes))


def rehash(folder: Path) -> None:
    """Bring the hashes up to date, so that only the content of the files can be what is wrong."""
    old = tables.read_yaml_record(folder / "split.yaml", SplitConfig)
    hashes = {name: tables.sha256(folder / name) for name in splits.label_files(folder, old)}
    text = json.dumps(old.model_copy(update={"files": hashes}).model_dump(mode="json"))  # JSON is YAML
    tables.write_text(folder / "split.yaml", text)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("template") / "tiny").path


@pytest.fixture
def tiny(template: Path, tmp_path: Path) -> Split:
    return Split(Path(shutil.copytree(template, tmp_path / "tiny")))


# --- writing and reading --------------------------------------------------------------------------------------


def test_a_split_is_read_as_it_was_written(tiny: Split) -> None:
    split = load_split(tiny.path)
    assert split.name == "tiny"
    assert split.items == tuple(items())
    assert split.twins == tuple(twins())
    assert split.canaries == tuple(CANARIES)
    assert split.counts() == counts()
    assert split.twin_counts() == twin_counts()
    assert split.policy_path == tiny.path / "policy"
    assert split.ids("unlearnable") == ("item-04", "item-05")
    assert split.ids("boundary") == ()
    assert split.families()["item-03"] == "family 1"
    assert split.config.pool == Pool(items="items.parquet", twins="twins.parquet", canaries="canaries.json")
    with pytest.raises(SplitError, match="there is no group 'hard'; groups are easy, learnable"):
        split.ids("hard")


def test_the_same_split_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.hash == second.hash
    for file in first.path.rglob("*"):
        if file.is_file():
            assert file.read_bytes() == (second.path / file.relative_to(first.path)).read_bytes()
    assert "policy/model.safetensors" in first.config.files
    assert not any(".cache" in name for name in first.config.files)


def test_the_hash_names_the_labels_and_not_the_controls(tmp_path: Path, tiny: Split) -> None:
    before = tiny.hash
    add_control(tiny, "null_control/1x")
    assert load_split(tiny.path).hash == before
    relabelled = [items()[0].model_copy(update={"group": "unstable"}), *items()[1:]]
    assert make(tmp_path / "b", items=relabelled).hash != before
    assert make(tmp_path / "c", config=config(budget=None)).hash != before
    assert make(tmp_path / "d", config=config(label_version="2")).hash != before
    assert make(tmp_path / "e", config=config(description="other words")).hash == before


def test_parts_are_datasets(tiny: Split) -> None:
    assert tiny.keys() == tuple(tiny) == ("train", *GROUPS)
    assert tiny["unlearnable"]["item_id"][:] == ["item-04", "item-05"]
    assert tiny["train"].num_rows == 10
    assert tiny["boundary"].num_rows == 0
    assert tiny["boundary"].column_names == list(Item.model_fields)
    with pytest.raises(SplitError, match="has no part 'test'; it has train, easy"):
        tiny["test"]


def test_an_unlabelled_split_can_be_loaded(tmp_path: Path) -> None:
    pool = [item.model_copy(update={"group": None, "certified": None}) for item in items()]
    tables.write_records(tmp_path / "pool.jsonl", pool, Item)
    stated = config(base_policy=PolicyRef(path="Qwen/Qwen2.5-0.5B"), pool=Pool(items="pool.jsonl"))
    tables.write_text(tmp_path / "split.yaml", stated.model_dump_json())
    split = load_split(tmp_path)
    assert split.items == tuple(pool)
    assert not split.twins
    assert not split.canaries
    assert split.twin_counts() is None
    assert split.policy_path == "Qwen/Qwen2.5-0.5B"
    assert split.keys() == ("train",)
    assert split["train"].num_rows == 10
    with pytest.raises(SplitError, match=r"lacks .*counts\.parquet"):
        split.counts()


def test_controls(tiny: Split) -> None:
    assert tiny.control("null_control") is None
    add_control(tiny, "null_control/1x")
    add_control(tiny, "positive_control")
    control = tiny.control("null_control", "1x")
    assert control is not None
    assert control.seeds == (9, 10)
    assert control.result is not None
    assert control.result.method.name == "grpo"
    assert control.hash == tables.sha256(tiny.path / "null_control" / "1x" / "counts.parquet")
    assert tiny.control("null_control", "4x") is None
    assert tiny.control("positive_control") is not None
    assert tiny.control("strong_null") is None
    (tiny.path / "positive_control" / "result.json").unlink()
    unscored = tiny.control("positive_control")
    assert unscored is not None
    assert unscored.result is None
    named = control.counts.set_column(2, "run", pc.binary_join_element_wise("seed", control.counts["run"], " "))
    tables.write_parquet(tiny.path / "strong_null" / "counts.parquet", named)
    with pytest.raises(DataError, match="run must be a seed"):
        tiny.control("strong_null")


# --- finding --------------------------------------------------------------------------------------------------


def test_finding_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    make(shelf / "micro")
    make(shelf / "other")
    monkeypatch.setattr(splits, "_SHELVES", (tmp_path / "none", shelf))
    assert shipped_splits() == ["micro", "other"]
    assert find_split() == shelf / "micro"
    make(tmp_path / "here" / "micro", config=config(name="stray"))
    monkeypatch.chdir(tmp_path / "here")
    assert load_split("micro").name == "tiny", "a stray folder must not take a shipped split's place"
    assert load_split("./micro").name == "stray"
    assert load_split(Path("micro")).name == "stray"
    with pytest.raises(
        SplitError, match=r"no split 'macro'; shipped splits: micro, other; a path to a folder with a spl"
    ):
        find_split("macro")
    with pytest.raises(SplitError, match=r"holds no split\.yaml; shipped splits: micro, other"):
        find_split(tmp_path)


# --- altered files --------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Split], object]] = {
    "items.parquet": lambda split: split.items,
    "twins.parquet": lambda split: split.twins,
    "canaries.json": lambda split: split.canaries,
    "counts.parquet": lambda split: split.counts(),
    "twin_counts.parquet": lambda split: split.twin_counts(),
    "data/easy.parquet": lambda split: split["easy"],
    "policy/model.safetensors": lambda split: split.policy_path,
}


@pytest.mark.parametrize("name", READERS)
def test_an_altered_or_missing_file_is_refused_when_it_is_read(tiny: Split, name: str) -> None:
    file = tiny.path / name
    file.write_bytes(file.read_bytes() + b" ")
    split = load_split(tiny.path)
    with pytest.raises(
        SplitError, match=r"hash differs\); restore it .* or run `unlearnbench splits validate"
    ) as caught:
        READERS[name](split)
    assert str(file) in str(caught.value)
    file.unlink()
    with pytest.raises(SplitError, match=r"lacks .*; restore it"):
        READERS[name](split)
    assert any(str(file) in problem and "missing" in problem for problem in validate(tiny.path))


# --- the sealed copy ------------------------------------------------------------------------------------------


def test_the_sealed_copy_tells_nothing_of_labels(tmp_path: Path, tiny: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    add_control(tiny, "null_control/1x")
    folder = seal(tiny, tmp_path / "sealed")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert files == ["items.parquet", "policy/config.json", "policy/model.safetensors", "split.yaml"]
    monkeypatch.setenv(splits.SEALED, str(folder))
    split = load_split("whatever")
    assert split.path == folder
    assert (split.name, split.config.recipe, split.config.protocol) == (
        "tiny",
        tiny.config.recipe,
        tiny.config.protocol,
    )
    assert split.config.budget == tiny.config.budget
    assert not split.config.files
    assert split.policy_path == folder / "policy"
    ids = [item.item_id for item in split.items]
    assert ids == sorted([*(item.item_id for item in items()), "item-03b"])
    assert split["train"].num_rows == 11
    assert {item.group for item in split.items} == {None}
    assert tables.read_parquet(folder / "items.parquet").column_names == [
        "item_id",
        "prompt",
        "answer",
        "solution",
        "family",
    ]
    canary = next(item for item in split.items if item.item_id == "item-03b")
    assert (canary.answer, canary.solution) == ("98", "")
    assert not split.twins
    assert not split.canaries
    told = str(tables.read_parquet(folder / "items.parquet").to_pylist()) + (folder / "split.yaml").read_text()
    for secret in (
        "unlearnable",
        "true_answer",
        "'99'",
        "twin ",
        "certified",
        tiny.hash,
        *tiny.config.files.values(),
    ):
        assert secret not in told


def test_sealing_again_gives_the_same_and_spares_other_files(tmp_path: Path, tiny: Split) -> None:
    first = seal(tiny, tmp_path / "sealed")
    before = {file: file.read_bytes() for file in first.rglob("*") if file.is_file()}
    seal(tiny, tmp_path / "sealed")
    assert {file: file.read_bytes() for file in first.rglob("*") if file.is_file()} == before
    with pytest.raises(SplitError, match=r"not empty \(it holds canaries\.json\)"):
        seal(tiny, tiny.path)


def test_a_policy_from_elsewhere_is_named_and_not_copied(tmp_path: Path) -> None:
    hub = make(tmp_path / "hub", config=config(base_policy=PolicyRef(path="Qwen/Qwen2.5-0.5B", revision="abc")))
    sealed = load_split(seal(hub, tmp_path / "sealed"))
    assert sealed.policy_path == "Qwen/Qwen2.5-0.5B"
    assert sealed.config.base_policy.revision == "abc"
    tables.write_bytes(tmp_path / "models" / "m" / "model.safetensors", b"weights")
    beside = make(tmp_path / "beside", config=config(base_policy=PolicyRef(path="../models/m")))
    sealed = load_split(seal(beside, tmp_path / "sealed-2"))
    assert isinstance(sealed.policy_path, Path)
    assert sealed.policy_path.resolve() == tmp_path / "models" / "m"
    assert not (sealed.path / "policy").exists()


# --- validation -----------------------------------------------------------------------------------------------


def edit(name: str, row: int, **changes: Any) -> Callable[[Path], None]:
    """Change fields of one row (from 1) of a table, whatever its model says."""

    def change(folder: Path) -> None:
        table = tables.read_parquet(folder / name)
        rows = table.to_pylist()
        rows[row - 1] |= changes
        tables.write_parquet(folder / name, pa.Table.from_pylist(rows, schema=table.schema))

    return change


def repeat(name: str, row: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        table = tables.read_parquet(folder / name)
        tables.write_parquet(folder / name, pa.concat_tables([table, table.slice(row - 1, 1)]))

    return change


def without_column(name: str, column: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        tables.write_parquet(folder / name, tables.read_parquet(folder / name).drop_columns([column]))

    return change


def canary(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: tables.write_records(
        folder / "canaries.json", [CANARIES[0].model_copy(update=changes)], Canary
    )


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: tables.write_text(folder / name, content)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no parquet": (text("items.parquet", "x"), "items.parquet is not a readable parquet file"),
    "no json": (text("canaries.json", "x"), "canaries.json: not valid JSON"),
    "column missing": (without_column("items.parquet", "answer"), "items.parquet: column 'answer' is missing"),
    "column missing in a part": (
        without_column("data/easy.parquet", "cause"),
        "data/easy.parquet: its columns are not item_id, prompt",
    ),
    "unknown group": (edit("items.parquet", 3, group="hard"), "items.parquet, row 3, field 'group'"),
    "unknown kind of twin": (edit("twins.parquet", 2, kind="evil"), "twins.parquet, row 2, field 'kind'"),
    "no label": (edit("items.parquet", 3, group=None), "row 3, field 'group': item 'item-02' has no label"),
    "another group than the counts say": (
        edit("items.parquet", 1, group="learnable"),
        "row 1, field 'group': item 'item-00' is labelled learnable (certified None, thin False) and its counts say",
    ),
    "item twice": (
        repeat("items.parquet", 1),
        "items.parquet, row 11, field 'item_id': 'item-00' is already the id of items.parquet, row 1",
    ),
    "twin twice": (repeat("twins.parquet", 4), "twins.parquet, row 31, field 'twin_id'"),
    "canary among the items": (
        canary(item_id="item-07"),
        "canaries.json, row 1, field 'item_id': 'item-07' is already the id of items.parquet, row 8",
    ),
    "item in two groups": (
        edit("data/learnable.parquet", 1, item_id="item-00"),
        "data/learnable.parquet, row 1, field 'item_id': 'item-00' is also in data/easy.parquet",
    ),
    "row twice in a part": (repeat("data/train.parquet", 1), "data/train.parquet, row 11, field 'item_id'"),
    "row missing in a part": (
        lambda folder: tables.write_parquet(
            folder / "data/easy.parquet", tables.read_parquet(folder / "data/easy.parquet").slice(0, 1)
        ),
        "data/easy.parquet: item 'item-01' of items.parquet is missing",
    ),
    "part disagrees": (
        edit("data/train.parquet", 2, prompt="other"),
        "data/train.parquet, row 2, field 'prompt': not what items.parquet says of item 'item-01'",
    ),
    "part missing": (lambda folder: (folder / "data/no_reward.parquet").unlink(), "no file"),
    "twin is an item": (
        edit("twins.parquet", 5, prompt="sum  3 5= "),
        "twins.parquet, row 5, field 'prompt': 'item-01/other_wording' has the prompt of item 'item-03'",
    ),
    "twin is a twin": (
        edit("twins.parquet", 5, prompt="twin changed_numbers of sum 0 5="),
        "has the prompt of 'item-00/changed_numbers' (twins.parquet, row 1)",
    ),
    "twin is a canary": (
        edit("twins.parquet", 5, prompt="sum 90 9="),
        "prompt of 'item-03b' (canaries.json, row 1)",
    ),
    "canary is an item": (canary(prompt="sum 3 5="), "field 'prompt': 'item-03b' has the prompt of item 'item-03'"),
    "twin of nothing": (
        edit("twins.parquet", 5, item_id="item-99"),
        "twins.parquet, row 5, field 'item_id': there is no item 'item-99'",
    ),
    "counts of nothing": (
        edit("counts.parquet", 5, item_id="item-99"),
        "counts.parquet, row 5, field 'item_id': there is no item 'item-99' here",
    ),
    "twin counts of nothing": (
        edit("twin_counts.parquet", 5, twin_id="t"),
        "twin_counts.parquet, row 5, field 'twin_id': there is no twin 't' here",
    ),
    "impossible counts": (
        edit("counts.parquet", 1, correct=33),
        "counts.parquet, row 1: item 'item-00', phase 'base', run '1': correct is 33, above n, which is 32",
    ),
    "canary with a true gold": (
        canary(answer="99"),
        "canaries.json, row 1, field 'answer': a canary's gold must be",
    ),
    "canary with an equal gold": (
        canary(answer="99.0"),
        "canaries.json, row 1, field 'answer': a canary's gold must",
    ),
    "solution of another problem": (
        edit("items.parquet", 1, solution="\\boxed{77}"),
        "items.parquet, row 1, field 'solution': it states '77', which does not verify against '5' (mismatch)",
    ),
    "solution without an answer": (
        edit("items.parquet", 1, solution="5, surely"),
        "items.parquet, row 1, field 'solution': it states no answer",
    ),
    "answer that is none": (
        edit("twins.parquet", 1, answer="}{"),
        "twins.parquet, row 1, field 'answer': it states",
    ),
}


def test_a_whole_split_is_valid(tiny: Split) -> None:
    assert validate(tiny.path) == []
    add_control(tiny, "null_control/1x")
    add_control(tiny, "positive_control")
    assert validate(tiny.path) == []


@pytest.mark.parametrize("case", BROKEN)
def test_validation_names_what_is_wrong(tiny: Split, case: str) -> None:
    change, sentence = BROKEN[case]
    change(tiny.path)
    assert validate(tiny.path), "the hash alone shows it"
    rehash(tiny.path)
    problems = validate(tiny.path)
    assert any(sentence in problem for problem in problems), problems
    assert not any("\n" in problem for problem in problems)


def test_validation_of_hashes(tiny: Split) -> None:
    stated = (tiny.path / "split.yaml").read_text()
    start = stated.index("  counts.parquet:")
    (tiny.path / "split.yaml").write_text(stated[:start] + stated[stated.index("\n", start) + 1 :])
    assert validate(tiny.path) == [f"{tiny.path / 'split.yaml'}, field 'files': the hash of counts.parquet is missing"]
    (tiny.path / "split.yaml").write_text(stated)
    tables.write_bytes(tiny.path / "policy" / "config.json", b"{ }")
    (problem,) = validate(tiny.path)
    assert str(tiny.path / "policy" / "config.json") in problem
    assert "hash" in problem
    tables.write_text(tiny.path / "split.yaml", "name: [")
    (problem,) = validate(tiny.path)
    assert "split.yaml, line 1" in problem


def test_validation_of_controls(tiny: Split) -> None:
    add_control(tiny, "null_control/1x")
    folder = tiny.path / "null_control" / "1x"
    edit("counts.parquet", 1, item_id="item-03b")(folder)  # a canary, in a phase of items
    (problem,) = validate(tiny.path)
    assert problem.endswith("1x/counts.parquet, row 1, field 'item_id': there is no item 'item-03b' here")
    add_control(tiny, "null_control/1x", seeds=(9, 11))
    assert [problem for problem in validate(tiny.path) if "its runs are not the seeds" in problem]
    add_control(tiny, "null_control/1x", split_hash="old")
    assert [problem for problem in validate(tiny.path) if "another version of this split" in problem]
    (folder / "counts.parquet").unlink()
    assert [problem for problem in validate(tiny.path) if "there is no file" in problem and "1x/counts" in problem]


# --- the command line -----------------------------------------------------------------------------------------


def test_the_list_of_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_SHELVES", (tmp_path,))
    assert "No splits are shipped" in CliRunner().invoke(command, []).stdout
    make(tmp_path / "tiny")
    assert "tiny" in CliRunner().invoke(command, []).stdout
    (row,) = json.loads(CliRunner().invoke(command, ["--json"]).stdout)
    assert (row["name"], row["items"], row["groups"]["easy"]["items"]) == ("tiny", 10, 2)


def test_show(tiny: Split) -> None:
    add_control(tiny, "null_control/1x")
    run = CliRunner().invoke(command, ["show", str(tiny.path), "--json"])
    shown = json.loads(run.stdout)
    assert shown["groups"]["unlearnable"] == {"items": 2, "certified": 2, "thin": 0}
    assert shown["groups"]["boundary"] == {"items": 0, "certified": 0, "thin": 0}
    assert shown["families"]["family 0"] == {"items": 5, "groups": dict.fromkeys(sorted(COUNTS), 1)}
    assert shown["controls"]["null_control"]["1x"]["seeds"] == [9, 10]
    assert shown["controls"]["positive_control"] is None
    assert shown["hash"] == tiny.hash
    assert shown["budget"] == {"flops_1x": 1000}
    assert shown["twin_kinds"] == dict.fromkeys(sorted(TWIN_KINDS), 10)
    table = CliRunner().invoke(command, ["show", str(tiny.path)])
    assert table.exit_code == 0
    assert "unlearnable" in table.stdout
    assert isinstance(CliRunner().invoke(command, ["show", "nowhere"]).exception, SplitError)


def test_validate_command(tiny: Split) -> None:
    run = CliRunner().invoke(command, ["validate", str(tiny.path)])
    assert (run.exit_code, run.stdout) == (0, "valid\n")
    (tiny.path / "data" / "easy.parquet").unlink()
    run = CliRunner().invoke(command, ["validate", str(tiny.path)])
    assert run.exit_code == 1
    assert len(run.stdout.splitlines()) == 2
    run = CliRunner().invoke(command, ["validate", str(tiny.path), "--json"])
    assert run.exit_code == 1
    assert json.loads(run.stdout)["valid"] is False
    assert len(json.loads(run.stdout)["problems"]) == 2


# --- load_dataset and the cards -------------------------------------------------------------------------------

LOAD = """
from datasets import load_dataset
whole = load_dataset("unlearnbench")
assert sorted(whole) == ["easy", "learnable", "no_reward", "train", "unlearnable", "unstable"], whole
part = load_dataset("unlearnbench", "micro", split="unlearnable")
assert part["item_id"][:] == ["item-04", "item-05"], part
assert load_dataset("unlearnbench", "other", split="train").num_rows == 10
assert load_dataset("splits", "micro", split="easy").num_rows == 2
"""


def test_load_dataset_works_at_the_root_of_a_checkout(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    make(tmp_path / "splits" / "micro")
    make(tmp_path / "splits" / "other")
    for card in ("unlearnbench/README.md", "splits/README.md"):
        (tmp_path / card).parent.mkdir(exist_ok=True)
        shutil.copy(root / card, tmp_path / card)
    (tmp_path / "unlearnbench" / "schema.json").write_text("{}")  # the package's own files are no data
    splits.write_cards(tmp_path)
    assert splits.cards(tmp_path) == {
        tmp_path / card: (tmp_path / card).read_text() for card in ("unlearnbench/README.md", "splits/README.md")
    }
    assert (tmp_path / "splits/README.md").read_text().endswith((root / "splits/README.md").read_text()[-200:])
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]


def shipped(name: str) -> Path:
    folder = Path(__file__).parents[1] / "splits" / name
    if not (folder / "split.yaml").is_file():
        pytest.skip(f"splits/{name} is not made yet")
    return folder


def test_shipped_micro_is_valid() -> None:
    assert validate(shipped("micro")) == []


def test_the_cards_follow_the_shipped_splits() -> None:
    root = shipped("micro").parents[1]
    for card, expected in splits.cards(root).items():
        assert card.read_text("utf-8") == expected, f"{card}: run splits.write_cards()"


def test_reading_a_split_needs_neither_torch_nor_datasets() -> None:
    script = (
        "import sys, unlearnbench.tables, unlearnbench.splits, unlearnbench.audit, unlearnbench.cli.splits;"
        "print([name for name in ('torch', 'datasets', 'transformers', 'rich') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_new_labels_change_the_cards_head_by_which_datasets_caches(small_split: Split, tmp_path: Path) -> None:
    shelf = tmp_path / "splits"
    shutil.copytree(small_split.path, shelf / "small")
    before = splits.front_matter(shelf, "")
    items = [item.model_copy(update={"thin": not item.thin}) for item in small_split.items]
    write_split(shelf / "small", small_split.config, items)
    assert splits.front_matter(shelf, "") != before
