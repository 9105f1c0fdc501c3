"""leaderboard/RULES.md: the rules in words, with every number taken from the code that enforces it."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from pathlib import Path
from typing import Any

from unlearnbench.harness.judge import SLACK_STEPS
from unlearnbench.io import safe_zip
from unlearnbench.leaderboard.bundles import bundle, tables
from unlearnbench.leaderboard.editions import CHAIN, DELAY, ENTRIES, Edition, editions
from unlearnbench.leaderboard.verification import count_tests
from unlearnbench.scoring.inference.permutation import MOST_P
from unlearnbench.scoring.score import MIN_SEEDS, SCORER_VERSION
from unlearnbench.splits import Split, shipped_splits
from unlearnbench.splits.split import shipped_folder

LICENCE = "Apache-2.0"
_TEMPLATE = Path(__file__).parents[1] / "templates" / "board_rules.md"


def rules(entries: Path = ENTRIES) -> str:
    """The text, with the editions listed beside the entries' folder and the splits that are shipped."""
    from jinja2 import Environment, StrictUndefined

    # not those that were built on this machine: the text must be the same everywhere
    shipped = [Split(shipped_folder(name)) for name in shipped_splits()]
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        scorer=SCORER_VERSION,
        seeds=MIN_SEEDS,
        level=MOST_P,
        slack=SLACK_STEPS,
        pair_floor=2 / comb(2 * MIN_SEEDS, MIN_SEEDS),
        editions=editions(entries),
        open_split=lambda edition: _open_split(edition, shipped),
        splits=[_facts(split) for split in shipped if (split.path / "items.parquet").is_file()],
        bundle_mib=safe_zip.LARGEST >> 20,
        members=safe_zip.MOST_MEMBERS,
        rows=f"{tables.MOST_ROWS:,}",
        most_seeds=bundle.MOST_SEEDS,
        source_kib=(bundle.member_limit("method/a.py") or 0) >> 10,
        file_gib=round(safe_zip.LARGEST_FILE / 2**30),
        false_alarm=f"1 in {round(1 / count_tests.FALSE_ALARM):,}",
        chain=CHAIN,
        delay=DELAY // 60,
        licence=LICENCE,
    )


def _open_split(edition: Edition, shipped: Sequence[Split]) -> str:
    """What an edition without a variant of its own was scored on."""
    if any(split.hash == edition.split_hash for split in shipped):
        return "the shipped split, whose labels are public"
    return "a split that was shipped before, whose labels are public"


def _facts(split: Split) -> dict[str, Any]:
    config, null = split.config, split.control("null_control", "1x")
    return {
        "name": split.name,
        "version": config.label_version,
        "hash": split.hash,
        "size": len(split.items),
        "unlearnable": len(split.ids("unlearnable")),
        "null": "none" if null is None else f"{len(null.seeds)} seeds",
        "flops": "-" if config.budget is None else f"{config.budget.flops_1x:.3g}",
    }
