"""The command that makes a result again: every setting that is not the split's recipe is spelled out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from unlearnbench.methods import BUILT_IN, locate
from unlearnbench.records import Result
from unlearnbench.splits import Split
from unlearnbench.splits.split import shipped_splits


def command(
    result: Result, split: Split, folder: Path, source: str | None = None, where: str | None = None
) -> str | None:
    """One line for a shell; None for what no command line makes again (foreign rollouts).

    `source` is the path of the method's file, by default the copy that the run keeps; `where` names the split, by
    default a shipped one of that name, else its folder.
    """
    if result.kind == "score":
        return None
    where = where or (result.split if result.split in shipped_splits() else str(split.path))
    words = ["unlearnbench", "eval"]
    if result.kind == "checkpoint":
        words += [word for seed in result.seeds for word in ("--checkpoint", f"POLICY-{seed}")]
        return shlex.join([*words, "--split", where, "--samples", str(result.samples)])
    words += ["--method", method_of(result, folder, source), "--split", where]
    if result.quick:
        words.append("--quick")
    else:
        words += ["--seeds", str(len(result.seeds)), "--samples", str(result.samples)]
        words += ["--budget", "1x" if result.budget.multiple is None else f"{result.budget.multiple:g}x"]
    recipe = split.config.recipe.model_dump(mode="json")
    for key, value in result.method.settings.items():
        if key not in recipe or recipe[key] != value:
            words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def method_of(result: Result, folder: Path, source: str | None = None) -> str:
    """What `--method` takes for a result's method: its name if it is built in, else a file."""
    name = result.method.name
    if name in BUILT_IN and locate(name).hash == result.method.source_hash:
        return name
    kept = folder / str(result.seeds[0]) / "method.py" if result.seeds else folder
    return source or (str(kept) if kept.is_file() else f"{name}.py")
