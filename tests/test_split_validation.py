"""`splits validate` from the outside: whatever is wrong with a split's files is named, with its file, row and field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny import CANARIES, add_control, rehash

from unlearnbench.adapters.export import export
from unlearnbench.curation.validate import inspect, validate
from unlearnbench.errors import DataError
from unlearnbench.io import files, tables
from unlearnbench.records import Canary, RelatedProblem
from unlearnbench.splits import Split


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
    return lambda folder: files.write_text(folder / name, content)


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
    files.write_bytes(tiny.path / "policy" / "config.json", b"{ }")
    (problem,) = validate(tiny.path)
    assert str(tiny.path / "policy" / "config.json") in problem
    assert "hash" in problem
    files.write_text(tiny.path / "split.yaml", "name: [")
    (problem,) = validate(tiny.path)
    assert "split.yaml, line 1" in problem


def test_validation_of_controls(tiny: Split) -> None:
    add_control(tiny, "null_control/1x")
    folder = tiny.path / "null_control" / "1x"
    edit("counts.parquet", 1, item_id="item-03b")(folder)  # a canary, in a phase of items
    problem, gap = validate(tiny.path)
    assert problem.endswith("1x/counts.parquet, row 1, field 'item_id': there is no item 'item-03b' here")
    assert gap.endswith("phase eval, run '9': item 'item-00' has no rollouts; run this control again")
    add_control(tiny, "null_control/1x", seeds=(9, 11))
    assert [problem for problem in validate(tiny.path) if "its runs are not the seeds" in problem]
    add_control(tiny, "null_control/1x", split_hash="old")
    assert [problem for problem in validate(tiny.path) if "another version of this split" in problem]
    (folder / "counts.parquet").unlink()
    assert [problem for problem in validate(tiny.path) if "there is no file" in problem and "1x/counts" in problem]


def only(folder: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Leave only some rows of a folder's counts."""
    table = tables.read_parquet(folder / "counts.parquet")
    rows = [row for row in table.to_pylist() if keep(row)]
    tables.write_parquet(folder / "counts.parquet", pa.Table.from_pylist(rows, schema=table.schema))


def test_a_control_has_every_item_and_every_probe_in_every_run(tiny: Split) -> None:
    folder = tiny.path / "null_control" / "1x"
    add_control(tiny, "null_control/1x")
    assert validate(tiny.path) == []
    only(folder, lambda row: (row["item_id"], row["run"]) not in {("item-00", "10"), ("item-04", "10")})
    (problem,) = validate(tiny.path)
    assert problem.endswith(
        "1x/counts.parquet, phase eval, run '10': item 'item-00' and 1 more have no rollouts; run this control again"
    )
    edit("twins.parquet", 1, probe=True)(tiny.path)
    rehash(tiny.path)
    add_control(Split(tiny.path), "null_control/1x")
    only(folder, lambda row: row["phase"] != "twin")
    assert [problem for problem in validate(tiny.path) if "phase twin, run '10': probe 'item-00/" in problem]


def test_fresh_base_rollouts_are_of_every_item_where_some_have_them(tiny: Split) -> None:
    table = tables.read_parquet(tiny.path / "counts.parquet")
    base = [row for row in table.to_pylist() if row["phase"] == "base"]
    fresh = [row | {"phase": "base_fresh"} for row in base if row["item_id"] != "item-03"]
    whole = pa.concat_tables([table, pa.Table.from_pylist(fresh, schema=table.schema)])
    tables.write_parquet(tiny.path / "counts.parquet", whole)
    rehash(tiny.path)
    (problem,) = validate(tiny.path)
    assert problem.endswith(
        "counts.parquet, phase base_fresh: item 'item-03' has no rollouts, though other items have; curate the split "
        "again"
    )


RELATED: dict[str, tuple[dict[str, Any], str]] = {
    "no such item": ({"item_id": "nobody"}, "row 1, field 'item_id': there is no item 'nobody'"),
    "an item's own text": ({"prompt": "sum 3  5="}, "field 'leaked': the prompt is that of an item"),
    "a wrong gold": ({"answer": ""}, "similar.parquet, row 1"),
    "an item's id": ({"problem_id": "item-03"}, "'item-03' occurs twice"),
}


@pytest.mark.parametrize("case", RELATED)
def test_validation_of_related_problems(tiny: Split, case: str) -> None:
    good = {"problem_id": "item-03-similar-0", "item_id": "item-03", "prompt": "sum 44 5=", "answer": "49"}
    rows = [{**good, "solution": "", "leaked": False}]
    schema = tables.record_schema(RelatedProblem)

    def write() -> None:
        tables.write_parquet(tiny.path / "similar.parquet", pa.Table.from_pylist(rows, schema=schema))

    write()
    assert validate(tiny.path) == []
    change, told = RELATED[case]
    rows[0] |= change
    write()
    (found,) = validate(tiny.path)
    assert told in found
    if "leaked" in told:
        rows[0]["leaked"] = True
        write()
        assert validate(tiny.path) == []


# --- pools that have no labels yet ----------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def pool(folder: Path, change: Callable[[Rows, Rows], None] = lambda items, twins: None, suffix: str = "jsonl") -> Path:
    """A pool as somebody brings it: jsonl, columns of its own, no hashes."""
    items: Rows = [
        {
            "item_id": k,
            "prompt": f"sum {k} 5=",
            "answer": k + 5,
            "solution": None,
            "family": "sums",
            "level": k,
            "source": "s",
        }
        for k in range(4)
    ]
    twins: Rows = [
        {"twin_id": f"{k}-t", "item_id": k, "kind": "changed_numbers", "prompt": f"sum {k} 6=", "answer": k + 6}
        for k in range(4)
    ]
    change(items, twins)
    for name, rows in ((f"items.{suffix}", items), ("twins.jsonl", twins)):
        files.write_text(folder / name, "".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "name": "pool",
        "base_policy": {"path": "p"},
        "pool": {"items": f"items.{suffix}", "twins": "twins.jsonl"},
    }
    files.write_text(folder / "split.yaml", json.dumps(config))
    return folder


def _set(table: int, row: int, **changes: Any) -> Callable[[Rows, Rows], None]:
    return lambda *tables: tables[table][row - 1].update(changes)


def _misspelt(items: Rows, twins: Rows) -> None:
    for item in items:
        item["soluton"] = item.pop("solution")


def _none_at_all(items: Rows, twins: Rows) -> None:
    items.clear()
    twins.clear()


POOLS: dict[str, tuple[Callable[[Rows, Rows], None], str]] = {
    "an id twice": (
        _set(0, 2, item_id=0),
        "items.jsonl, row 2, field 'item_id': '0' is already the id of items.jsonl, row 1",
    ),
    "an id of a twin": (
        _set(1, 2, twin_id="3"),
        "twins.jsonl, row 2, field 'twin_id': '3' is already the id of items.jsonl, row 4",
    ),
    "two golds of one prompt": (
        _set(0, 3, prompt="sum 0  5="),
        "items.jsonl, row 3, field 'answer': the prompt is that of item '0' (row 1), whose answer is '5' and not '7'",
    ),
    "a twin that is an item": (
        _set(1, 2, prompt="sum 3 5="),
        "twins.jsonl, row 2, field 'prompt': '1-t' has the prompt of item '3'",
    ),
    "a twin of nothing": (_set(1, 2, item_id=9), "twins.jsonl, row 2, field 'item_id': there is no item '9'"),
    "a blank prompt": (_set(0, 2, prompt=" \n"), "items.jsonl, row 2, field 'prompt': it is empty"),
    "a gold that is none": (_set(0, 4, answer="}{"), "items.jsonl, row 4, field 'answer': it states no answer"),
    "a worked solution": (
        _set(0, 4, answer="3 + 5\n#### 8"),
        "items.jsonl, row 4, field 'answer': it has several lines",
    ),
    "an empty id": (_set(0, 4, item_id=" "), "items.jsonl, row 4, field 'item_id': it is empty"),
    "an empty gold": (_set(0, 4, answer=""), "items.jsonl, row 4, field 'answer'"),
    "a typing error": (_misspelt, "row 1, field 'soluton': there is no such field; did you mean 'solution'?"),
    "nothing": (_none_at_all, "items.jsonl: it has no items"),
}


def test_a_pool_is_valid_before_it_has_labels(tmp_path: Path) -> None:
    assert validate(pool(tmp_path / "pool")) == []
    assert Split(tmp_path / "pool").items[2].answer == "7"


def test_a_pool_may_be_a_published_data_set_or_what_verl_reads(tiny: Split, tmp_path: Path) -> None:
    folder = pool(tmp_path / "pool")
    (folder / "twins.jsonl").unlink()
    told = '{"name": "pool", "base_policy": {"path": "p"}, "pool": {"items": "train.%s"}}'
    files.write_text(folder / "split.yaml", told % "parquet")
    export(tiny, "verl", folder)
    assert validate(folder) == []
    found = Split(folder).items
    assert [(item.item_id, item.prompt, item.answer) for item in found] == [
        (item.item_id, item.prompt, item.answer) for item in tiny.items
    ]
    assert {item.family for item in found} == {"unlearnbench/tiny"}
    row = {"problem": "What is 2 + 3?", "solution": "\\boxed{5}", "answer": "5", "subject": "Algebra", "level": 2}
    files.write_text(folder / "train.jsonl", json.dumps({**row, "unique_id": "test/algebra/1.json"}) + "\n")
    files.write_text(folder / "split.yaml", told % "jsonl")
    assert validate(folder) == []
    (item,) = Split(folder).items
    assert (item.item_id, item.prompt, item.family) == ("test/algebra/1.json", "What is 2 + 3?", "Algebra")


def test_a_gold_that_only_its_own_text_matches_is_named_in_the_pools_own_file(tmp_path: Path) -> None:
    (warning,) = inspect(pool(tmp_path / "pool", _set(0, 4, answer="\\frac{1}{"))).ungradable
    assert f"{tmp_path / 'pool' / 'items.jsonl'}, row 4, field 'answer'" in warning


@pytest.mark.parametrize("case", POOLS)
def test_a_pool_is_checked_whole_before_anything_is_drawn(case: str, tmp_path: Path) -> None:
    from unlearnbench import curate

    change, sentence = POOLS[case]
    folder = pool(tmp_path / "pool", change)
    problems = validate(folder)
    assert any(sentence in problem for problem in problems), problems
    with pytest.raises(DataError) as caught:
        curate(folder / "split.yaml", tmp_path / "out")
    assert str(caught.value).startswith(problems[0])
    assert f"`unlearnbench splits validate {folder}` lists all problems" in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.parquet"))


def test_a_file_that_a_pool_names_has_to_be_there(tmp_path: Path) -> None:
    folder = pool(tmp_path / "pool")
    (folder / "twins.jsonl").unlink()
    (problem,) = validate(folder)
    assert f"there is no file {folder / 'twins.jsonl'}" in problem
