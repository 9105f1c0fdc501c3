"""Which problem of a split a rollout answers: by its id, else by the text of its prompt.

A prompt is compared as it is and out of its chat template (`io/chats.py`); a longer text matches the one problem whose
text it contains, as of a prompt with an instruction or with examples before it. Two problems of one text match nobody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from unlearnbench.errors import DataError
from unlearnbench.io.chats import asked, without_template
from unlearnbench.io.rollout_reader import Batch
from unlearnbench.splits import Split
from unlearnbench.splits.source_dataset import stripped

KEYS = ("item_id", "twin_id")
CONTAINED = 24
"""Characters of a problem that is looked for inside a longer text; shorter ones must be equal."""
_HEAD = 16
_MOST = 100_000
"""Prompts that are remembered with what they match."""


class ProblemIndex:
    """The problems of a split (items, twins, canaries) by id and by text."""

    def __init__(self, split: Split) -> None:
        self.split = split.name
        problems = [(item.item_id, item.prompt) for item in split.items]
        problems += [(twin.twin_id, twin.prompt) for twin in split.twins]
        problems += [(canary.item_id, canary.prompt) for canary in split.canaries]
        owners: dict[str, set[str]] = defaultdict(set)
        for name, prompt in problems:
            for form in _forms(prompt):
                owners[form].add(name)
        self._by_text = {form: next(iter(names)) for form, names in owners.items() if len(names) == 1}
        self._by_head: dict[str, list[str]] = defaultdict(list)
        for form in owners:  # also of several owners: what contains such a text matches nobody
            if len(form) >= CONTAINED:
                self._by_head[form[:_HEAD]].append(form)
        self._matched: dict[str, str | None] = {}

    def match(self, prompt: str) -> str | None:
        """The id of the one problem that a prompt asks; None where there is none, or more than one."""
        if prompt not in self._matched:
            if len(self._matched) == _MOST:
                self._matched.clear()
            self._matched[prompt] = self._match(prompt)
        return self._matched[prompt]

    def name(self, where: str, fields: Iterable[object], texts: Iterable[object]) -> str:
        """The id that one of these mappings states, else that of the problem that one of these texts asks.

        A number that an evaluator gave to its samples is a position in some file, and is never taken for an id.
        Raises DataError that begins with `where`.
        """
        for own in fields:
            if isinstance(own, Mapping):
                for key in KEYS:
                    stated = own.get(key)
                    if isinstance(stated, str | int):
                        return str(stated)
        for text in texts:
            prompt = asked(text)
            if prompt is not None and (found := self.match(prompt)) is not None:
                return found
        raise DataError(
            f"{where}: no field 'item_id', and its text is that of no problem of split {self.split} alone; give the "
            "evaluated data a column item_id (`unlearnbench export` writes one)"
        )

    def named(self, batch: Batch) -> Batch:
        """The batch with an id in every row. Raises DataError naming the first row that matches no problem."""
        ids = batch.rows["item_id"].combine_chunks()
        if not ids.null_count:
            return batch
        coded = batch.rows["prompt"].combine_chunks().dictionary_encode()
        matched = pa.array([self.match(prompt) for prompt in coded.dictionary.to_pylist()], pa.string())
        ids = pc.coalesce(ids, matched.take(coded.indices))
        if ids.null_count:
            row = pc.index(pc.is_null(ids), True).as_py()
            prompt = batch.rows["prompt"][row].as_py()
            found = "it has no prompt" if prompt is None else f"its prompt {prompt[-60:]!r} is that of no problem alone"
            raise DataError(
                f"{batch.where(row)}: it has no item_id, and {found} in split {self.split}; log the ids (`unlearnbench "
                "export` writes them), name their column with --column item_id=NAME, or name another split"
            )
        return Batch(batch.source, batch.rows.set_column(0, "item_id", ids), batch.numbers, batch.done)

    def _match(self, prompt: str) -> str | None:
        forms = list(_forms(prompt))
        for form in forms:
            if form in self._by_text:
                return self._by_text[form]
        contained = self._contained(forms[0])
        return self._by_text.get(contained.pop()) if len(contained) == 1 else None

    def _contained(self, text: str) -> set[str]:
        """The problems' texts inside a text, each from the start of a word to the end of one; of two that begin at
        the same place, the longer."""
        found = set()
        start = 0
        while start < len(text):
            inside = [
                form
                for form in self._by_head.get(text[start : start + _HEAD], ())
                if text.startswith(form, start) and not text[start + len(form) : start + len(form) + 1].isalnum()
            ]
            if inside:
                found.add(max(inside, key=len))
            start = text.find(" ", start) + 1 or len(text)
        return found


def _forms(prompt: str) -> Iterator[str]:
    """A prompt as it is compared: with single spaces, and out of templates and instructions."""
    for text in without_template(prompt):
        for form in (text, stripped(text)):
            yield " ".join(form.split())
