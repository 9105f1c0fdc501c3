"""What a notebook shows of a result and a split: the sentence that may be quoted, and no markup of anybody's."""

from __future__ import annotations

import re
from pathlib import Path

from results import result_of

from unlearnbench.io import files, tables
from unlearnbench.records import GroupScore, MethodRecord, Result
from unlearnbench.reports.headline import verdict
from unlearnbench.splits import Split, find_split, load_split


def test_a_result_shows_its_verdict_and_its_groups() -> None:
    result = tables.read_json_record(find_split("micro") / "positive_control/result.json", Result)
    shown = result._repr_html_()
    assert verdict(result).label in shown and "373" in shown
    rows = re.findall(r"<tr><th>(\w+)</th><td>", shown)
    assert rows == ["easy", "learnable", "unlearnable", "no_reward", "unstable", "boundary"]


def test_what_a_method_is_called_cannot_write_markup() -> None:
    score = GroupScore(
        items=1,
        rate_before=None,
        rate_start=None,
        rate_after=None,
        rate_after_interval=None,
        converted_at_start=None,
        converted=0,
        conversion=0.0,
        conversion_interval=None,
        pass_at_k={},
    )
    method = MethodRecord(name="<img src=x onerror=alert(1)>\u202e", source_hash="", track="verifier")
    shown = result_of(method=method, groups={"unlearnable": score})._repr_html_()
    assert "<img" not in shown and "&lt;img" in shown and "\u202e" not in shown


def test_a_split_shows_its_groups(micro: Split, tmp_path: Path) -> None:
    assert "<td>373</td>" in micro._repr_html_() and "1\u202f162" in micro._repr_html_()
    folder = tmp_path / "mine"
    config = {"name": "mine", "description": "<b>bold</b>", "base_policy": {"path": "policy"}}
    files.write_json(folder / "split.yaml", config)  # JSON is YAML
    shown = load_split(folder)._repr_html_()
    assert "&lt;b&gt;bold" in shown and "no items.parquet" in shown
    assert "unlearnbench splits build" in load_split("qwen2.5-3b-deepscaler")._repr_html_()
