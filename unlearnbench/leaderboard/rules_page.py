"""leaderboard/RULES.md: the rules in words, every number in them read from what enforces it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unlearnbench.harness.judge import SLACK_STEPS
from unlearnbench.io import safe_zip
from unlearnbench.leaderboard import bundle, bundle_tables, copy_detection
from unlearnbench.leaderboard.editions import ENTRIES, editions
from unlearnbench.leaderboard.ranking import LEVEL
from unlearnbench.scoring.score import MIN_SEEDS, SCORER_VERSION
from unlearnbench.splits import Split, shipped_splits
from unlearnbench.splits.split import shipped_folder

LICENCE = "Apache-2.0"
_TEMPLATE = Path(__file__).parents[1] / "templates" / "board_rules.md"


def rules(entries: Path = ENTRIES) -> str:
    """The text, with the editions that stand beside the entries' folder and the splits that are shipped."""
    from jinja2 import Environment, StrictUndefined

    # not those that were built on this machine: the text must be the same everywhere
    shipped = [Split(shipped_folder(name)) for name in shipped_splits()]
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False).from_string(
        _TEMPLATE.read_text(encoding="utf-8")
    )
    return template.render(
        scorer=SCORER_VERSION,
        seeds=MIN_SEEDS,
        level=LEVEL,
        slack=SLACK_STEPS,
        editions=editions(entries),
        splits=[_facts(split) for split in shipped if (split.path / "items.parquet").is_file()],
        bundle_mib=safe_zip.LARGEST >> 20,
        members=safe_zip.MOST_MEMBERS,
        rows=f"{bundle_tables.MOST_ROWS:,}",
        most_seeds=bundle.MOST_SEEDS,
        source_kib=(bundle.member_limit("method/a.py") or 0) >> 10,
        false_alarm=f"1 in {round(1 / copy_detection.FALSE_ALARM):,}",
        sigmas=f"{copy_detection.SIGMAS:g}",
        fixed=copy_detection.FIXED_PROBLEMS,
        borrowed=copy_detection.BORROWED_PROBLEMS,
        share=round(100 * copy_detection.BORROWED_SHARE),
        licence=LICENCE,
    )


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
