"""UnlearnBench: does an RLVR algorithm convert the problems that GRPO cannot learn?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Resolved on first use, so that `unlearnbench --help` and the torch-free stages stay quick.
_PUBLIC = {
    "load_split": "splits",
    "Split": "splits",
    "verify": "verifier",
    "Verifier": "verifier",
    "Method": "method",
    "evaluate": "harness.evaluate",
    "curate": "curation.curate",
    "diagnose": "diagnosis.diagnose",
    "compare": "scoring.comparison",
    "read_run": "scoring.comparability",
    "Item": "records",
    "Twin": "records",
    "Result": "records",
    "Rollout": "records",
    "RolloutGroup": "records",
    "Verdict": "records",
    "UnlearnBenchError": "errors",
}
__all__ = [*_PUBLIC, "__version__"]

if TYPE_CHECKING:
    from unlearnbench.curation.curate import curate as curate
    from unlearnbench.diagnosis.diagnose import diagnose as diagnose
    from unlearnbench.errors import UnlearnBenchError as UnlearnBenchError
    from unlearnbench.harness.evaluate import evaluate as evaluate
    from unlearnbench.method import Method as Method
    from unlearnbench.records import Item as Item
    from unlearnbench.records import Result as Result
    from unlearnbench.records import Rollout as Rollout
    from unlearnbench.records import RolloutGroup as RolloutGroup
    from unlearnbench.records import Twin as Twin
    from unlearnbench.records import Verdict as Verdict
    from unlearnbench.scoring.comparability import read_run as read_run
    from unlearnbench.scoring.comparison import compare as compare
    from unlearnbench.splits import Split as Split
    from unlearnbench.splits import load_split as load_split
    from unlearnbench.verifier import Verifier as Verifier
    from unlearnbench.verifier import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unlearnbench' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"unlearnbench.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value
