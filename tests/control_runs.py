"""Runs for the experiments' pages that cost nothing: controls that the split ships, under the names of methods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from experiments.runs import Runs, collect
from unlearnbench.splits import Split, find_split


def control_runs(folder: Path, micro: Split) -> Runs:
    """The positive control as the run `grpo`, GRPO at twice the learning rate as `grpo-4x`, as if at that budget."""
    for control, name in (("positive_control", "grpo"), ("tuned_null/2", "grpo-4x")):
        (folder / name).mkdir()
        for file in ("result.json", "counts.parquet"):
            shutil.copy(find_split("micro") / control / file, folder / name / file)
    file = folder / "grpo-4x" / "result.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"budget": told["budget"] | {"multiple": 4.0}}))
    return collect(folder, micro)
