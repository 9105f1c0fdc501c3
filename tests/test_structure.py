"""Structural promises: the order of imports, stages without torch, public names, what the package never does."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unlearnbench

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(unlearnbench.__file__).resolve().parent

# The order of reading is the order of imports: a module imports from its own line or from lines above it.
STAGES = (
    ("errors", "records"),
    ("draws",),
    ("tables",),
    ("overlap", "released", "packaged"),
    ("rollouts", "rows", "stored"),
    ("splits", "audit", "eval_logs"),
    (
        "answers",
        "spelling",
        "equality",
        "units",
        "expressions",
        "grammar",
        "enclosures",
        "structures",
        "regions",
        "brackets",
        "numerals",
        "quantities",
        "reading",
        "agreement",
    ),
    ("algebra", "grader"),
    ("verdict_cache", "verdict_log", "verifier", "judged"),
    ("second_grader",),
    ("trainer_options", "recomputing", "sharding", "policy", "lora"),
    ("samplers",),
    ("method",),
    ("methods",),
    ("measured",),
    (
        "budget",
        "batch",
        "mismatch",
        "hooks",
        "processes",
        "services",
        "ledger",
        "checkpoint",
        "groups",
        "train",
        "starting",
    ),
    ("measure",),
    ("rates", "grid", "labels", "rule", "intervals", "simulation", "moments", "power"),
    ("grading_record", "judges", "stored_verdicts", "item_verdicts", "relabelling", "grading"),
    ("fates", "conversion", "fairness", "counted", "comparison", "aa"),
    ("packing", "packed_attention", "gradients", "similarity"),
    ("notation", "verdict", "recorded", "outcomes", "plots", "report"),
    ("comparison_text", "comparison_page", "notebook"),
    ("diagnosis_options", "rollout_pool", "similarity_record", "usable_items", "item_vectors", "similarity_page"),
    ("source_rows", "fetch", "build", "unpacking", "publish", "export"),
    ("endpoint", "asking", "augment", "adapters"),
    (
        "devices",
        "privileges",
        "crew",
        "launch",
        "machines",
        "shards",
        "checkpoint_place",
        "jobs",
        "evaluation",
        "sealing",
        "worker",
        "evaluate",
        "curate",
        "tally",
        "score",
    ),
    ("archive", "foreign", "bundle_tables", "bundle", "originality", "judging", "claims", "verification"),
    (
        "sandbox",
        "kept_answers",
        "standings",
        "leaderboard",
        "closing",
        "retrained",
        "pull_request",
        "retraining",
        "board_rules",
    ),
    ("pictures", "split_page", "board_page", "site"),
    ("assumed", "probe", "cost", "detection", "planning", "doctor"),
    ("policy_place", "diagnosis_folder", "memory_plan", "diagnosis_stages", "diagnosis"),
    ("cli",),
)
RANK = {name: rank for rank, stage in enumerate(STAGES) for name in stage}

# A split's audit judges answers and derives labels again, with what stands below it; only when it is asked to. What a
# notebook shows of a record is asked of the record, and written by what tells.
LATE = {("audit", "labels"), ("audit", "verifier")}
LATE |= {("records", "notebook"), ("splits", "notebook"), ("comparison", "notebook")}

# What computes with a policy; every other module stays without torch, so that files can be judged on any laptop.
WITH_TORCH = frozenset(
    {
        "policy",
        "lora",
        "recomputing",
        "sharding",
        "samplers",
        "method",
        "packing",
        "packed_attention",
        "batch",
        "mismatch",
        "hooks",
        "processes",
        "services",
        "checkpoint",
        "groups",
        "train",
        "starting",
    }
    | {"measure", "gradients", "item_vectors", "worker", "curate"}
)

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.relative_to(PACKAGE).parts[0].startswith("_")
}


def _imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Modules of the package that a tree imports, each with whether that is inside a function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they read the same everywhere"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "unlearnbench" and len(parts) > 1 and parts[1] in {m.split(".")[0] for m in MODULES}:
                yield parts[1], id(node) in inside


def _run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_has_a_place_in_the_order() -> None:
    homeless = sorted({name.split(".")[0] for name in MODULES} - RANK.keys())
    assert homeless == [], "give them a place in STAGES of this file"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    own = name.split(".")[0]
    wrong = [
        target
        for target, in_function in _imports(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        if RANK.get(target, 0) > RANK.get(own, 0) and not (in_function and (own, target) in LATE)
    ]
    assert wrong == []


def test_what_has_no_need_of_torch_never_imports_it() -> None:
    # The methods themselves (methods.grpo) need torch; what finds them does not, and no command before it is called.
    names = [name for name in MODULES if name.split(".")[0] not in WITH_TORCH and name.count(".") == 0]
    names += [name for name in MODULES if name.startswith("cli.")]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(f"unlearnbench.{{name}}")
    assert "torch" not in sys.modules, name
"""
    _run(code)


def test_the_package_alone_imports_nothing_heavy() -> None:
    code = "import json, sys, unlearnbench; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(_run(code)))
    assert loaded & {"numpy", "torch", "pydantic", "click", "rich", "yaml", "pyarrow"} == set()


def test_every_public_name_is_there() -> None:
    # Whatever was imported before it: `unlearnbench.evaluate` is a module too, and the function must win.
    names = sorted(unlearnbench.__all__)
    for order in (names, names[::-1]):
        kinds = _run(f"import unlearnbench; print([type(getattr(unlearnbench, name)).__name__ for name in {order!r}])")
        assert "module" not in kinds


@pytest.mark.parametrize("name", ["evaluate", "curate"])
def test_a_function_wins_over_the_module_of_its_name(name: str) -> None:
    code = f"import unlearnbench.{name}; print(callable(unlearnbench.{name}))"
    assert _run(code).strip() == "True"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        _ = unlearnbench.evalute


def test_type_checkers_see_the_names_that_are_public() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearnbench.")
        for alias in node.names
    }
    assert typed == {name: f"unlearnbench.{module}" for name, module in unlearnbench._PUBLIC.items()}


@pytest.mark.parametrize("name", MODULES)
def test_nothing_from_outside_is_unpickled_or_run(name: str) -> None:
    found = []
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [
                a.name for a in node.names if a.name in {"pickle", "cPickle", "dill", "joblib", "shelve", "marshal"}
            ]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if node.module in {"pickle", "dill", "joblib", "shelve", "marshal"} else []
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            found += [called] if called in {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load"} else []
            found += [k.arg for k in node.keywords if k.arg in {"allow_pickle", "trust_remote_code"} and _true(k.value)]
    assert found == []


def _true(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Constant) and node.value is False)


@pytest.mark.checkout
def test_no_tracked_file_names_a_place_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Assembled here, so that this file does not find itself.
    places = re.compile(rb"(?<![\w.~-])/(?:" + b"|".join((b"work", b"root", b"home", b"Users")) + rb")/\w")
    found = []
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            found += [f"{name}: {match.group().decode()}" for match in places.finditer(path.read_bytes())]
    assert found == []


@pytest.mark.checkout
def test_the_documents_name_every_hook_and_service_with_its_arguments() -> None:
    from unlearnbench.method import HOOKS, Method, Services

    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    services = [name for name, value in vars(Services).items() if inspect.isfunction(value) and name[0] != "_"]
    missing = [f"`{_call(Method, hook)}`" for hook in HOOKS if f"`{_call(Method, hook)}`" not in text]
    missing += [f"`{_call(Services, name)}`" for name in services if f"`{_call(Services, name)}`" not in text]
    missing += [name for name in inspect.get_annotations(Services) if f"`{name}`" not in text]
    assert missing == []


def _call(owner: type, name: str) -> str:
    """The call as a document writes it: answer(item_id), logprobs(context, token_ids, policy="current")."""
    shown = []
    for parameter in list(inspect.signature(getattr(owner, name)).parameters.values())[1:]:
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        default = "" if parameter.default is parameter.empty else f"={json.dumps(parameter.default)}"
        shown.append(f"{star}{parameter.name}{default}")
    return f"{name}({', '.join(shown)})"


@pytest.mark.checkout
def test_the_training_document_speaks_of_every_rule_that_the_code_cites() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    cited = {
        int(number)
        for path in MODULES.values()
        for number in re.findall(r"\bLOOP (\d+)", path.read_text(encoding="utf-8"))
    }
    assert [rule for rule in sorted(cited) if not re.search(rf"^{rule}\. ", text, re.MULTILINE)] == []
