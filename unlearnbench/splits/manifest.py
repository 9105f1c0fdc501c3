"""What was released of a split measured elsewhere: ids, where its problems come from, and what is missing.

`released.json` stands beside the split.yaml of a split whose problem texts do not travel with the package. It holds
no text of any problem: ids, addresses, hashes and the limits of what they say. `unlearnbench splits build` makes the
split from it (build.py); a built split keeps it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearnbench.io import tables
from unlearnbench.records import GroupName, Record

RELEASED, BUILT = "released.json", "build.json"

Related = Literal["similar", "sub_problems"]

PACKAGED = "policy.json"
POLICY = "policy"


class SourceData(Record):
    """The data set whose problems the ids number."""

    repository: str
    """Its name on the Hub."""
    file: str
    """The file there, and under a local copy's folder."""
    licence: str
    form: Literal["simplerl", "problems"]
    """`simplerl`: rows with question, gt_answer, prompt and extra_info.index; `problems`: problem, answer, solution."""
    numbering: str
    """The column with an item's number, or `row` for the place in the file, from 0."""


class ReleasedFile(Record):
    """A released file of generated problems, whose ids are `<number>_<k>`."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    kind: Related
    group: GroupName
    numbers: Literal["index", "position"]
    """Whether its numbers are those of the source data, or positions in a sample that was not released."""


class Release(Record):
    """Where the generated problems come from."""

    addresses: Sequence[str]
    """Folders on the web, tried in this order; the hashes say whether what came is right."""
    licence: str
    notice: str
    files: Sequence[ReleasedFile]
    rewards: RewardLog | None = None


class RewardLog(Record):
    """A released file of the rewards that one training run gave to each prompt at each step (`released_rewards.py`)."""

    name: str
    git_blob: str = Field(pattern="^[0-9a-f]{40}$")
    """The id of its content in the repository that released it."""
    about: str
    """Which run it is of."""


class ReleasedGroup(Record):
    """A group's released ids, and what they mean."""

    ids: Sequence[int] = ()
    positions: Sequence[int] = ()
    """Numbers that are not indices: resolved by text where that can be done, and never joined on."""
    extent: Literal["lower bound", "sample"]
    note: str = ""


class Released(Record):
    """released.json."""

    schema_version: Literal[1] = 1
    paper: str
    source: SourceData
    release: Release | None = None
    seeds: Sequence[int] = ()
    """Of the reference runs whose evaluation gave the labels."""
    groups: Mapping[GroupName, ReleasedGroup] = {}
    missing: Sequence[str] = ()
    """What the labels do not say, a sentence each."""


class Resolved(Record):
    """A position that its problems' texts tie to one row of the source data."""

    position: int
    index: int
    margin: float
    """Likeness of the problems to that row, over that to the next best row."""


class Built(Record):
    """build.json: how a split was made from released.json, and what the checks found."""

    schema_version: Literal[1] = 1
    source: str
    """`hub`, or `local`; the place on this machine is nobody else's concern."""
    source_revision: str | None = None
    source_sha256: str
    released_sha256: str
    items: int
    labelled: Mapping[GroupName, int] = {}
    matched: float | None = None
    """Share of the labelled items that are liker to their own problems than nine tenths of the pool are."""
    doubtful: Sequence[str] = ()
    """Items that are not."""
    resolved: Sequence[Resolved] = ()
    unresolved: Sequence[int] = ()
    """Positions that no text could be found for with enough certainty."""
    similar: int = 0
    similar_leaked: int = 0
    sub_problems: int = 0
    sub_problems_leaked: int = 0
    left_out: int = 0
    """Released problems of unresolved positions: there is no item to link them to."""
    rewards: bool = False
    """Whether the released rewards of a training run are in the folder."""


def released_of(folder: Path) -> Released | None:
    """What released.json of a split says; None if it has none. Raises DataError if it is malformed."""
    file = folder / RELEASED
    return tables.read_json_record(file, Released) if file.is_file() else None


def built_of(folder: Path) -> Built | None:
    """What build.json of a split says; None before it was built. Raises DataError if it is malformed."""
    file = folder / BUILT
    return tables.read_json_record(file, Built) if file.is_file() else None


def waits(folder: Path) -> bool:
    """Whether a split is known here by its ids alone: released, and not built."""
    return (folder / RELEASED).is_file() and not (folder / "items.parquet").is_file()


class Packaged(Record):
    """policy.json: a quantised model in a package, and what becomes of it."""

    schema_version: Literal[1] = 1
    package: str
    """Its name on the index."""
    version: str
    module: str
    """The folder that it installs."""
    file: str
    """The GGUF file in there."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of that file."""
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    """Of model.safetensors: the weights in bfloat16."""
    licence: str


def packaged_of(folder: Path) -> Packaged | None:
    """What policy.json of a split says; None if it has none. Raises DataError if it is malformed."""
    file = folder / PACKAGED
    return tables.read_json_record(file, Packaged) if file.is_file() else None


def waits_for_policy(folder: Path) -> bool:
    """Whether a split is here without its base policy, which is to be made from a package."""
    return (folder / PACKAGED).is_file() and not (folder / POLICY / "config.json").is_file()
