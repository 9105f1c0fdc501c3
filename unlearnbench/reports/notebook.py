"""Results, comparisons and splits as a notebook shows them: the sentence that may be quoted, and one small table."""

from __future__ import annotations

from unlearnbench.records import GROUPS, Result
from unlearnbench.reports.comparison_report import named, sentences, several
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.templating import templates
from unlearnbench.scoring.comparison import Comparison
from unlearnbench.splits import Split
from unlearnbench.splits.manifest import waits

MAX_MOVED = 10  # items of a side; the record has all


def _html(name: str, **values: object) -> str:
    """A template's macro, with all foreign text escaped."""
    return str(getattr(templates().get_template("notebook.html").make_module(), name)(**values))


def result_html(result: Result) -> str:
    """The headline of a result with its caveats, and its groups before and after."""
    told = verdict(result)
    groups = [(name, result.groups[name]) for name in GROUPS if name in result.groups]
    return _html("result", told=told, result=result, groups=groups)


def comparison_html(told: Comparison) -> str:
    """Each pair's sentences, and the items that only one of the two converted."""
    pairs = [
        {
            "title": f"{named(told, pair.first)} against {named(told, pair.second)}",
            "sentences": sentences(told, pair),
            "labels": (pair.first, pair.second),
            "moved": [*pair.only_first[:MAX_MOVED], *pair.only_second[:MAX_MOVED]],
            "all": len(pair.only_first) + len(pair.only_second),
        }
        for pair in told.pairs
    ]
    return _html("comparison", told=told, pairs=pairs, warning=several(told))


def split_html(split: Split) -> str:
    """What a split holds: its groups, and what the labels rest on; its texts may still be missing."""
    config, counts = split.config, {}
    if (split.path / config.pool.items).is_file():
        counts = {name: len(split.ids(name)) for name in GROUPS}
    number = len(split.items) if counts else None
    return _html("split", config=config, hash=split.hash, counts=counts, items=number, waits=waits(split.path))
