"""What the judge knows and a method does not: answers, solutions, labels, related problems, other policies.

Everything that is asked for is noted in the seed's folder, whether or not it is answered to the method's own code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from unlearnbench.errors import MethodError, SplitError
from unlearnbench.io import tables
from unlearnbench.io.files import write_bytes, write_json
from unlearnbench.records import READS, RelatedProblem, Verdict
from unlearnbench.splits import Split
from unlearnbench.splits.source_dataset import framed
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.trace import valid_steps

ASKED = "asked.json"
POLICY = "other_policy"
"""Folder for the positive control's policy. It is there before the method's processes are, which may read it."""
CANARY_GROUP = "unstable"
"""The label of canaries, which are in no group: nothing may distinguish them from items."""


class Privileged:
    """The privileged side of one run of a split."""

    def __init__(self, split: Split, folder: Path) -> None:
        self.split, self.folder = split, folder
        self._problems = {item.item_id: (item.answer, item.solution) for item in split.items}
        self._problems |= {canary.item_id: (canary.answer, canary.solution) for canary in split.canaries}
        self._traces = split.config.protocol.valid_trace == "solution"
        self._related: dict[str, Mapping[str, list[tuple[str, str]]]] = {}
        for kind in ("similar", "sub_problems"):  # of a run that asked before it was resumed, they are in the pool
            if kind in asked(folder) and (split.path / f"{kind}.parquet").is_file():
                self._read_related(kind)

    def require(self, item_id: str) -> None:
        """Raise MethodError for an id that is not in the pool."""
        if item_id not in self._problems:
            raise MethodError(f"The method sent a rollout of {item_id!r:.80}, which is not in its pool.")

    def gold(self, item_id: str) -> str:
        """The gold answer."""
        return self._problems[item_id][0]

    def valid_trace(self, item_id: str, text: str, verdict: Verdict) -> bool | None:
        """Whether a rewarded rollout reads as its reference solution; None where the split has no such check."""
        if not self._traces:
            return None
        return bool(verdict.correct) and text.strip() == self._problems[item_id][1]

    def ask(self, name: str, item_id: str | None, text: str | None, verifier: Verifier) -> Any:
        """What READS calls `name`, as JSON, or a verdict. Raises SplitError for what the split does not have."""
        if name not in READS:
            raise SplitError(f"there is nothing called {name!r:.80} to ask for")
        if name in ("process", "answer", "solution", "verdict", "similar", "sub_problems"):
            self.require(item_id or "")
        note(self.folder, name)
        item = item_id or ""
        match name:
            case "process":
                return self._valid_steps(item, text or "")
            case "verdict":
                return verifier.verify_many([(self.gold(item), text or "")])[0]
            case "answer":
                return self.gold(item)
            case "solution":
                return self._problems[item][1]
            case "labels":
                return self._labels()
            case "similar" | "sub_problems":
                return self._read_related(name).get(item, [])
            case _:
                return self._policy()

    def _valid_steps(self, item_id: str, text: str) -> tuple[int, int]:
        if not self._traces:
            raise SplitError(
                f"the traces of split {self.split.name} cannot be checked (protocol.valid_trace is not `solution`); "
                "choose a split where they can, such as micro, or a method of another track"
            )
        return valid_steps(text, self._problems[item_id][1])

    def _labels(self) -> dict[str, str | None]:
        groups: dict[str, str | None] = {item.item_id: item.group for item in self.split.items}
        return groups | dict.fromkeys((canary.item_id for canary in self.split.canaries), CANARY_GROUP)

    def _read_related(self, kind: Literal["similar", "sub_problems"]) -> Mapping[str, list[tuple[str, str]]]:
        """Ids and prompts of the problems that belong to each item; from now on they may be drawn as items are."""
        if kind in self._related:
            return self._related[kind]
        path = self.split.path / f"{kind}.parquet"
        if not path.is_file():
            raise SplitError(
                f"split {self.split.name} has no {path.name}; choose a split that ships one, or another method"
            )
        prompts = {item.item_id: item.prompt for item in self.split.items}
        found: dict[str, list[tuple[str, str]]] = {}
        for row in tables.read_records(path, RelatedProblem):
            if not row.leaked:  # shown to the policy as its item is: in the same template
                prompt = framed(row.prompt, prompts[row.item_id]) if row.item_id in prompts else row.prompt
                found.setdefault(row.item_id, []).append((row.problem_id, prompt))
                self._problems.setdefault(row.problem_id, (row.answer, row.solution))
        self._related[kind] = found
        return found

    def _policy(self) -> str:
        """A copy of the positive control's policy, since the split's own folder is hidden from the process."""
        origin, copy = self.split.path / "positive_control" / "policy", self.folder / POLICY
        if not origin.is_dir():
            raise SplitError(
                f"split {self.split.name} ships no positive_control/policy; choose a split that does, or another method"
            )
        if not (copy / "config.json").is_file():  # the last file: a kill may come before it
            copy.mkdir(parents=True, exist_ok=True)
            for file in sorted(origin.iterdir(), key=lambda file: file.name == "config.json"):
                if file.is_file():
                    write_bytes(copy / file.name, file.read_bytes())
        return str(copy.resolve())


def asked(folder: Path) -> list[str]:
    """What the run of one seed has asked for so far, names of READS."""
    path = folder / ASKED
    return [name for name in json.loads(path.read_text()) if name in READS] if path.is_file() else []


def note(folder: Path, name: str) -> None:
    """Write down that a run has asked for something."""
    known = asked(folder)
    if name not in known:
        write_json(folder / ASKED, sorted({*known, name}))
