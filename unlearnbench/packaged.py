"""A base policy that travels in a package of an index, and not with its split.

`policy.json` stands beside the split.yaml of such a split. `unlearnbench splits build` makes the policy from the
package that is installed here (unpacking.py) and checks it by its hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from unlearnbench import tables
from unlearnbench.records import Record

PACKAGED = "policy.json"
POLICY = "policy"


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
