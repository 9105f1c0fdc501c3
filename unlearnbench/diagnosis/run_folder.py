"""The folder of a diagnosis: which policy and options it is bound to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearnbench.diagnosis.record import SimilarityRecord
from unlearnbench.errors import RunError
from unlearnbench.io import files, tables

RESULT, SEVERAL = "similarity.json", "policies.json"


def claim(folder: Path, work: Path, wanted: Mapping[str, Any]) -> None:
    """Bind a folder to one policy's diagnosis. Raises RunError naming what differs where another one is there.

    `wanted` holds `source` (the policy), `prompt_format`, `split` and `rollouts` (hashes or None), and the options.
    """
    if (folder / SEVERAL).is_file():
        raise RunError(f"{folder} holds diagnoses of several policies; name another folder with --out, or remove it")
    if (folder / RESULT).is_file():
        _compare(folder, _bound(tables.read_json_record(folder / RESULT, SimilarityRecord)), wanted)
    path = work / "configuration.json"
    if path.is_file() and any((work / "gathered").glob("*.parquet")):
        _compare(folder, json.loads(path.read_text()), wanted)
        return
    for left in (work / "policy.json", work / "used.parquet"):  # of a command that came to nothing
        left.unlink(missing_ok=True)
    files.write_json(path, wanted)


def claim_several(folder: Path, names: Sequence[str]) -> None:
    """The same for several policies, whose folders in it have these names; no other may be there."""
    if (folder / RESULT).is_file() or (folder / ".work").is_dir():
        raise RunError(
            f"{folder} holds the diagnosis of one policy, not of several; name another folder with --out, or remove it"
        )
    for result in sorted(folder.glob(f"*/{RESULT}")):
        if re.match(r"\d+-", result.parent.name) and result.parent.name not in names:
            raise RunError(
                f"{folder} holds a diagnosis of another policy ({result.parent.name}); name another folder with "
                "--out, or remove it"
            )


def _bound(record: SimilarityRecord) -> dict[str, Any]:
    """What a written result is of, as `claim` has it."""
    hashes = {"split": record.split_hash, "rollouts": record.rollouts_file}
    return {**record.options, "source": record.source, **hashes}


def _compare(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            name = "policy" if key == "source" else key
            raise RunError(
                f"{folder} holds a diagnosis with another {name} ({found.get(key)!r} there, {value!r} here); name "
                "another folder with --out, or remove it"
            )
