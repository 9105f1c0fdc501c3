"""A split from the outside: what is written is read, what was altered is refused, what is sealed tells nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
from tiny import CANARIES, add_control, config, counts, items, make, twin_counts, twins

from unlearnbench.curation.validate import validate
from unlearnbench.errors import DataError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS, Item, PolicyRef, Pool
from unlearnbench.splits import Split, find_split, load_split, seal, shipped_splits, write_split
from unlearnbench.splits import split as split_module
from unlearnbench.splits.sealed import read_sealed

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
    assert tiny["boundary"].column_names == [name for name in Item.model_fields if name != "depth"]
    with pytest.raises(SplitError, match="has no part 'test'; it has train, easy"):
        tiny["test"]


def test_a_split_with_an_axis_of_difficulty_has_its_column_in_every_part(tmp_path: Path) -> None:
    whole = [item.model_copy(update={"depth": 1 + number % 3}) for number, item in enumerate(items())]
    split = write_split(tmp_path / "deep", config(), whole, counts=tables.COUNTS.empty_table())
    assert [item.depth for item in split.items] == [item.depth for item in whole]
    for part in split:
        assert split[part].column_names == list(Item.model_fields)


def test_an_unlabelled_split_can_be_loaded(tmp_path: Path) -> None:
    pool = [item.model_copy(update={"group": None, "certified": None}) for item in items()]
    tables.write_records(tmp_path / "pool.jsonl", pool, Item)
    stated = config(base_policy=PolicyRef(path="Qwen/Qwen2.5-0.5B"), pool=Pool(items="pool.jsonl"))
    files.write_text(tmp_path / "split.yaml", stated.model_dump_json())
    split = load_split(tmp_path)
    assert split.items == tuple(pool)
    assert not split.twins
    assert not split.canaries
    assert split.twin_counts() is None
    assert split.policy_path == "Qwen/Qwen2.5-0.5B"
    assert split.keys() == ("train",)
    assert split["train"].num_rows == 10
    with pytest.raises(SplitError, match=r"lacks .*counts\.parquet: it is not labelled; run `unlearnbench curate"):
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
    assert control.hash == files.sha256(tiny.path / "null_control" / "1x" / "counts.parquet")
    assert tiny.control("null_control", "4x") is None
    assert tiny.control("positive_control") is not None
    assert tiny.control("tuned_null", "2") is None
    (tiny.path / "positive_control" / "result.json").unlink()
    unscored = tiny.control("positive_control")
    assert unscored is not None
    assert unscored.result is None
    named = control.counts.set_column(2, "run", pc.binary_join_element_wise("seed", control.counts["run"], " "))
    tables.write_parquet(tiny.path / "positive_control" / "counts.parquet", named)
    with pytest.raises(DataError, match="run must be a seed"):
        tiny.control("positive_control")


# --- finding --------------------------------------------------------------------------------------------------


def test_finding_a_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    make(shelf / "micro")
    make(shelf / "other")
    monkeypatch.setattr(split_module, "SHELVES", (tmp_path / "none", shelf))
    assert shipped_splits() == ["micro", "other"]
    assert find_split() == shelf / "micro"
    make(tmp_path / "here" / "micro", config=config(name="stray"))
    monkeypatch.chdir(tmp_path / "here")
    assert load_split("micro").name == "tiny", "a stray folder must not take a shipped split's place"
    assert load_split("./micro").name == "stray"
    assert load_split(Path("micro")).name == "stray"
    with pytest.raises(
        SplitError,
        match=r"no split 'macro' \(did you mean 'micro'\?\); shipped splits: micro, other; a path to a fold",
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


def test_the_sealed_copy_tells_nothing_of_answers_and_labels(
    tmp_path: Path, tiny: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_control(tiny, "null_control/1x")
    folder = seal(tiny, tmp_path / "sealed")
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    assert files == ["policy/config.json", "policy/model.safetensors", "pool.parquet", "split.yaml"]
    sealed = read_sealed(folder)
    config, own = sealed.config, tiny.config
    assert (config.name, config.recipe, config.protocol) == ("tiny", own.recipe, own.protocol)
    assert config.budget == own.budget
    assert not config.files
    assert sealed.policy == folder / "policy"
    prompts = {item.item_id: item.prompt for item in tiny.items} | {c.item_id: c.prompt for c in tiny.canaries}
    assert list(sealed.pool) == sorted(prompts.items())  # canaries among the items
    assert len(sealed.pool) == 11 and "item-03b" in prompts
    table = tables.read_parquet(folder / "pool.parquet")
    assert table.column_names == ["item_id", "prompt"]
    told = str(table.to_pylist()) + (folder / "split.yaml").read_text()
    answers = [f"'{item.answer}'" for item in (*tiny.items, *tiny.canaries)]
    for secret in ("unlearnable", "true_answer", "twin ", "certified", "family", tiny.hash, *answers):
        assert secret not in told
    assert not any(value in told for value in own.files.values())
    monkeypatch.setenv(split_module.SEALED, str(folder))
    split = load_split("whatever")  # inside a method's process every name is that of the sealed copy
    assert (split.path, split.config, split.policy_path) == (folder, config, folder / "policy")
    with pytest.raises(
        SplitError, match=r"no items\.parquet in a method's process; it has the prompts of self\.run\.items"
    ):
        split["train"]
    assert not split.twins and not split.canaries


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
    files.write_bytes(tmp_path / "models" / "m" / "model.safetensors", b"weights")
    beside = make(tmp_path / "beside", config=config(base_policy=PolicyRef(path="../models/m")))
    sealed = load_split(seal(beside, tmp_path / "sealed-2"))
    assert isinstance(sealed.policy_path, Path)
    assert sealed.policy_path.resolve() == tmp_path / "models" / "m"
    assert not (sealed.path / "policy").exists()
