"""Structural promises: the order of imports, stages without torch, public names, what the package never does."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import unlearnbench

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(unlearnbench.__file__).resolve().parent

# The rooms in the order of reading, which is the order of imports: a module imports from its own room or from rooms to
# the left. `records`, `errors`, `rng` and `method` are rooms of one module.
FLOORS = """
errors records rng < io < splits < scoring < verifier < policies < method < methods < training < reports < adapters
< workers < harness < curation < diagnosis < leaderboard < cli < api
"""
ORDER = FLOORS.replace("<", " ").split()
RANK = {name: rank for rank, name in enumerate(ORDER)}

# A notebook asks a record to show itself; the page is written by `reports`. Inside functions only.
LATE = {(name, "reports.notebook") for name in ("records.result", "splits.split", "scoring.comparisons.comparison")}
LATE |= {("workers.worker", "diagnosis.jobs")}

WITHOUT_TORCH = {"io", "splits", "scoring", "verifier", "reports", "leaderboard", "cli"}
"""Rooms that never import torch, so that labels and scores can be computed again on any laptop."""

FILES, LINES, FUNCTION, ARGUMENTS = 18, 420, 75, 14
"""Most files of a room, lines of a file, lines of a function, arguments of a function."""

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.relative_to(PACKAGE).parts[0].startswith("_")
}


def _module(name: str) -> str | None:
    """The module of the package that a dotted name of it lies in, as `room.module`."""
    parts = name.split(".")[1:]
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in MODULES:
            return ".".join(parts[:end])
    return None


def _imports(tree: ast.AST) -> Iterator[tuple[str, str, bool]]:
    """What a tree imports of the package: module, name in it, and whether that is inside a function."""
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
            if name.startswith("unlearnbench.") and (module := _module(name)):
                yield module, name.removeprefix(f"unlearnbench.{module}").lstrip("."), id(node) in inside


def _run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _room(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_room() -> None:
    assert sorted({_room(name) for name in MODULES} - RANK.keys()) == [], "give it a place in ORDER of this file"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_room_and_rooms_before_it(name: str) -> None:
    wrong = [
        module
        for module, _, late in _imports(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        if RANK[_room(module)] > RANK[_room(name)] and not (late and (name, module) in LATE)
    ]
    assert wrong == []


def test_no_imports_go_in_a_circle() -> None:
    reached: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        found = {(module, late) for module, _, late in _imports(ast.parse(path.read_text(encoding="utf-8")))}
        reached[name] = {module for module, late in found if not (late and (name, module) in LATE)} - {name}
    while ends := [name for name, after in reached.items() if not after & reached.keys()]:
        for name in ends:
            del reached[name]
    assert sorted(reached) == []


@pytest.mark.parametrize("name", MODULES)
def test_nothing_private_is_imported(name: str) -> None:
    imported = _imports(ast.parse(MODULES[name].read_text(encoding="utf-8")))
    assert [f"{module}.{what}" for module, what, _ in imported if what.startswith("_")] == []


def test_rooms_files_functions_and_arguments_stay_small() -> None:
    found = []
    for room, count in Counter(path.parent.relative_to(PACKAGE).as_posix() for path in MODULES.values()).items():
        if count > FILES and room not in ("cli", "methods"):
            found.append(f"{room}: {count} files")
    for name, path in MODULES.items():
        source = path.read_text(encoding="utf-8")
        found += [f"{name}: {lines} lines" for lines in [source.count("\n")] if lines > LINES]
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef):
                continue
            lines = (node.end_lineno or 0) - node.lineno + 1
            arguments = [a.arg for a in (*node.args.args, *node.args.kwonlyargs) if a.arg not in ("self", "cls")]
            command = any("command" in ast.unparse(one) or "option" in ast.unparse(one) for one in node.decorator_list)
            command = command or _room(name) == "api"  # a command's options, as arguments
            found += [f"{name}.{node.name}: {lines} lines"] if lines > FUNCTION and _room(name) != "api" else []
            found += (
                [f"{name}.{node.name}: {len(arguments)} arguments"]
                if len(arguments) > ARGUMENTS and not command
                else []
            )
    assert found == []


def test_what_has_no_need_of_torch_never_imports_it() -> None:
    names = [name for name in MODULES if _room(name) in WITHOUT_TORCH or ("." not in name and name != "method")]
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
    # Whatever was imported before it: `unlearnbench.harness.evaluate` is a module too, and the function must win.
    names = sorted(unlearnbench.__all__)
    for order in (names, names[::-1]):
        kinds = _run(f"import unlearnbench; print([type(getattr(unlearnbench, name)).__name__ for name in {order!r}])")
        assert "module" not in kinds


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
def test_the_page_of_the_architecture_names_every_room_and_every_module_once() -> None:
    page = (ROOT / "docs/reference/architecture.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == ORDER
    assert re.findall(r"^### (\w+)$", page, re.MULTILINE) == ORDER
    listed = re.findall(r"^- \[`([\w/]+\.py)`\]", page, re.MULTILINE)
    assert sorted(listed) == sorted(path.relative_to(PACKAGE).as_posix() for path in MODULES.values())


@pytest.mark.checkout
def test_the_documents_name_every_hook_and_service_with_its_arguments() -> None:
    from unlearnbench.method import HOOKS, Method, Services

    text = (ROOT / "docs/reference/methods.md").read_text(encoding="utf-8")
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
    text = (ROOT / "docs/reference/training.md").read_text(encoding="utf-8")
    cited = {
        int(number)
        for path in MODULES.values()
        for number in re.findall(r"\bLOOP (\d+)", path.read_text(encoding="utf-8"))
    }
    assert [rule for rule in sorted(cited) if not re.search(rf"^{rule}\. ", text, re.MULTILINE)] == []
