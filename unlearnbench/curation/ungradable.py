"""Items whose gold only its own text can match: listed before they are used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.records import Item
from unlearnbench.verifier import Verifier, ungradable


def ungradable_items(items: Sequence[Item], file: Path) -> list[str]:
    """One sentence for each item of `file` whose gold only its own text can match; no policy is seen to solve it."""
    with Verifier() as verifier:
        why = ungradable([item.answer for item in items], verifier)
    return [
        f"{file}, row {row}, field 'answer': only its own text can match the gold {item.answer!r} "
        f"of item {item.item_id!r} ({why[item.answer]}); write it differently or leave the item out"
        for row, item in enumerate(items, start=1)
        if item.answer in why
    ]
