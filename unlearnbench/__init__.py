"""UnlearnBench: does an RLVR algorithm convert the problems that GRPO cannot learn?"""

import importlib as _importlib
import typing as _typing

__version__ = "0.2.0"

# Resolved on first use, so that `unlearnbench --help` and the torch-free stages stay quick.
_PUBLIC = {
    "evaluate": "api.runs",
    "score": "api.runs",
    "check": "api.runs",
    "plan": "api.runs",
    "curate": "api.runs",
    "diagnose": "api.results",
    "compare": "api.results",
    "read_run": "api.results",
    "submit": "api.results",
    "export": "api.results",
    "validate": "api.results",
    "load_split": "splits",
    "Split": "splits",
    "verify": "verifier",
    "Verifier": "verifier",
    "Method": "method",
    "Plan": "method",
    "LossBatch": "method",
    "Item": "records",
    "Twin": "records",
    "Result": "records",
    "Rollout": "records",
    "RolloutGroup": "records",
    "Verdict": "records",
    "UnlearnBenchError": "errors",
}
_PACKAGES = ("methods",)
"""Public packages: `methods()` lists the methods that `methods` holds."""
__all__ = [*_PUBLIC, *_PACKAGES, "__version__"]

if _typing.TYPE_CHECKING:
    from unlearnbench.api.results import compare as compare
    from unlearnbench.api.results import diagnose as diagnose
    from unlearnbench.api.results import export as export
    from unlearnbench.api.results import read_run as read_run
    from unlearnbench.api.results import submit as submit
    from unlearnbench.api.results import validate as validate
    from unlearnbench.api.runs import check as check
    from unlearnbench.api.runs import curate as curate
    from unlearnbench.api.runs import evaluate as evaluate
    from unlearnbench.api.runs import plan as plan
    from unlearnbench.api.runs import score as score
    from unlearnbench.errors import UnlearnBenchError as UnlearnBenchError
    from unlearnbench.method import LossBatch as LossBatch
    from unlearnbench.method import Method as Method
    from unlearnbench.method import Plan as Plan
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


def __getattr__(name: str) -> _typing.Any:
    if name in _PACKAGES:
        return _importlib.import_module(f"unlearnbench.{name}")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'unlearnbench' has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"unlearnbench.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
