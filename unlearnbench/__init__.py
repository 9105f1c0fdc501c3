"""UnlearnBench: does an RLVR algorithm convert the problems that GRPO cannot learn?"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Resolved on first use, so that `unlearnbench --help` and the torch-free stages stay quick.
_PUBLIC = {
    "load_split": "splits",
    "Split": "splits",
    "verify": "verifier",
    "Verifier": "verifier",
    "Method": "method",
    "evaluate": "evaluate",
    "curate": "curate",
    "diagnose": "diagnosis",
    "compare": "comparison",
    "read_run": "fairness",
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
    from unlearnbench.comparison import compare as compare
    from unlearnbench.curate import curate as curate
    from unlearnbench.diagnosis import diagnose as diagnose
    from unlearnbench.errors import UnlearnBenchError as UnlearnBenchError
    from unlearnbench.evaluate import evaluate as evaluate
    from unlearnbench.fairness import read_run as read_run
    from unlearnbench.method import Method as Method
    from unlearnbench.records import Item as Item
    from unlearnbench.records import Result as Result
    from unlearnbench.records import Rollout as Rollout
    from unlearnbench.records import RolloutGroup as RolloutGroup
    from unlearnbench.records import Twin as Twin
    from unlearnbench.records import Verdict as Verdict
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


class _Package(ModuleType):
    """`evaluate` and `curate` name both a module and a function: importing the module must not hide the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
