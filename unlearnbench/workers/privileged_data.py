"""What a training process may ask its parent for: labels, related problems, other policies. What was asked is noted.

The process that runs a method has none of this, and the note is made on this side of the pipe: a method that reaches
past `self.run` and asks by itself is noted all the same.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from unlearnbench.errors import SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import READS, RelatedProblem
from unlearnbench.splits import Split
from unlearnbench.splits.source_dataset import framed

ASKED = "asked.json"
POLICY = "other_policy"
CANARY_GROUP = "unstable"
"""What labels say of canaries, which are in no group: nothing may tell them from items."""


class Privileges:
    """Answers one seed's questions about a split, and writes down in its folder what was asked."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.split, self.folder = split, folder

    def answer(self, name: str) -> Any:
        """What READS calls `name`, as JSON. Raises SplitError for what the split does not have."""
        reply = {
            "labels": self._labels,
            "similar": lambda: self._related("similar"),
            "sub_problems": lambda: self._related("sub_problems"),
            "teacher": self._policy,
            "base": self._policy,
        }.get(name)
        if reply is None:
            raise SplitError(f"there is nothing called {name!r} to ask for")
        files.write_json(self.folder / ASKED, sorted({*asked(self.folder), name}))
        return reply()

    def _labels(self) -> dict[str, str | None]:
        groups: dict[str, str | None] = {item.item_id: item.group for item in self.split.items}
        return groups | dict.fromkeys((canary.item_id for canary in self.split.canaries), CANARY_GROUP)

    def _related(self, kind: str) -> dict[str, list[dict[str, Any]]]:
        path = self.split.path / f"{kind}.parquet"
        if not path.is_file():
            raise SplitError(
                f"split {self.split.name} has no {path.name}; choose a split that ships one, or another method"
            )
        prompts = {item.item_id: item.prompt for item in self.split.items}
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in tables.read_records(path, RelatedProblem):
            if not row.leaked:  # shown to the policy as its item is: in the same template
                prompt = framed(row.prompt, prompts[row.item_id]) if row.item_id in prompts else row.prompt
                rows[row.item_id].append(row.model_dump() | {"prompt": prompt})
        return rows

    def _policy(self) -> str:
        """A copy of the positive control's policy, since the split's own folder is hidden from the process."""
        origin, copy = self.split.path / "positive_control" / "policy", self.folder / POLICY
        if not origin.is_dir():
            raise SplitError(
                f"split {self.split.name} ships no positive_control/policy; choose a split that does, or another method"
            )
        if not copy.is_dir():
            fresh = copy.with_name(f".{POLICY}.tmp")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(origin, fresh)
            fresh.rename(copy)
        return str(copy.resolve())


def asked(folder: Path) -> list[str]:
    """What the run of one seed has asked for so far, names of READS."""
    path = folder / ASKED
    return [name for name in json.loads(path.read_text()) if name in READS] if path.is_file() else []
