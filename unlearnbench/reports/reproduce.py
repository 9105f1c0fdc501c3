"""The command that makes a result again: every setting that is not the split's recipe is spelled out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import Result
from unlearnbench.splits import Split
from unlearnbench.splits.split import shipped_splits


def command(result: Result, split: Split, folder: Path, source: str | None = None) -> str | None:
    """One line for a shell; None for what no command line makes again (foreign rollouts).

    `source` is the path of the method's file, by default the copy that the run keeps.
    """
    if result.kind == "score":
        return None
    where = result.split if result.split in shipped_splits() else str(split.path)
    words = ["unlearnbench", "eval"]
    if result.kind == "checkpoint":
        words += [word for seed in result.seeds for word in ("--checkpoint", f"POLICY-{seed}")]
        return shlex.join([*words, "--split", where, "--samples", str(result.samples)])
    words += ["--method", _method(result, folder, source), "--split", where]
    if (result.why_not_comparable or "").startswith("--quick"):
        words.append("--quick")
    else:
        words += ["--seeds", str(len(result.seeds)), "--samples", str(result.samples)]
        words += ["--budget", "1x" if result.budget.multiple is None else f"{result.budget.multiple:g}x"]
    recipe = split.config.recipe.model_dump(mode="json")
    for key, value in result.method.settings.items():
        if key not in recipe or recipe[key] != value:
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _method(result: Result, folder: Path, source: str | None) -> str:
    name = result.method.name
    if name in BUILT_IN and locate(name).hash == result.method.source_hash:
        return name
    if source is not None or not result.seeds:
        return source or f"{name}.py"
    return str(folder / str(result.seeds[0]) / "method.py")
