"""`unlearnbench methods` and `new-method`, and the method that the documents work out."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from unlearnbench.cli.main import run
from unlearnbench.cli.methods import methods, new_method
from unlearnbench.errors import MethodError
from unlearnbench.method import HOOKS, Method, Plan, overridden, settings_of
from unlearnbench.methods import BUILT_IN, GROUP, load, locate
from unlearnbench.records import TRACKS, Recipe, Rollout, RolloutGroup, Verdict

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; what method files load as modules is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(("_method_", "plugin_")):
            del sys.modules[name]


def _call(command: Any, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def _refused(result: Result) -> str:
    """The sentence that the command line ends with, at status 1."""
    assert isinstance(result.exception, MethodError)
    sentence = str(result.exception)
    assert "\n" not in sentence and len(sentence) > 20
    return sentence


def _group(item_id: str, *rewards: float) -> RolloutGroup:
    """A group with these rewards and two tokens per rollout."""
    tokens = np.array([5, 1], dtype=np.int32)
    scores = np.array([-0.5, -0.1], dtype=np.float32)
    rollouts = tuple(
        Rollout(item_id, i, tokens, tokens, scores, "", "stop", Verdict(r > 0, "1", "match"), r)
        for i, r in enumerate(rewards)
    )
    return RolloutGroup(item_id, "prompt", 0, rollouts)


def _plugin(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Install a module with an entry point of ours, as a distribution in a folder of its own."""
    site = folder / "site"
    info = site / "plugin_demo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-demo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ndemo = plugin_demo:Demo\ngrpo = plugin_demo:Demo\n")
    (site / "plugin_demo.py").write_text(code)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()


# --- methods --------------------------------------------------------------------------------------------------


def test_json_lists_every_built_in_method() -> None:
    result = _call(methods, "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["name"] for row in rows][: len(BUILT_IN)] == list(BUILT_IN)
    for row in rows:
        assert set(row) == {"name", "track", "source", "gain"}
        assert row["track"] in TRACKS
        assert row["source"]
        assert row["gain"] is None or -1 <= row["gain"] <= 1
    del rows[0]["gain"]  # what was measured last: test_experiments.py
    assert rows[0] == {"name": "grpo", "track": "verifier", "source": "arXiv 2402.03300"}


def test_the_table_says_the_same() -> None:
    result = _call(methods)
    assert result.exit_code == 0, result.output
    for name in BUILT_IN:
        assert name in result.stdout
    assert "arXiv 2402.03300" in result.stdout


def test_installed_methods_are_listed_and_built_in_names_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "    track = 'answer'\n    source = '[bold]theirs[/bold]'\n"
    code = f"import unlearnbench as ub\nclass Demo(ub.Method):\n{body}"
    _plugin(folder, monkeypatch, code)
    rows = json.loads(_call(methods, "--json").stdout)
    assert rows[-1] == {"name": "demo", "track": "answer", "source": "[bold]theirs[/bold]", "gain": None}
    assert [row["name"] for row in rows].count("grpo") == 1
    assert rows[0]["source"] == "arXiv 2402.03300"
    assert "[bold]theirs[/bold]" in _call(methods).stdout  # words of others are not markup


def test_a_broken_plug_in_is_named_and_the_others_are_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _plugin(folder, monkeypatch, "raise RuntimeError('broken')\n")
    result = _call(methods, "--json")
    assert [row["name"] for row in json.loads(result.stdout)] == list(BUILT_IN)
    sentence = _refused(result)
    assert "demo" in sentence and "broken" in sentence


# --- new-method -----------------------------------------------------------------------------------------------


def test_the_skeleton_is_grpo_with_a_setting(folder: Path) -> None:
    result = _call(new_method, "my_algo")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == ["my_algo.py", "test_my_algo.py"]
    cls = load(locate("my_algo"))
    assert cls.__name__ == "MyAlgo"
    assert overridden(cls) == ["advantages"]
    group = _group("a", 1, 0, 0, 0)
    reference = Method(Recipe()).advantages(group)
    assert np.allclose(cls(settings_of(cls, Recipe(), {})).advantages(group), reference)
    assert np.allclose(cls(settings_of(cls, Recipe(), {"scale": 2})).advantages(group), 2 * reference)


def test_a_users_file_is_its_own_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["new-method", "mine"]) == 0
    (folder / "theirs.py").write_text(
        "import unlearnbench as ub\n\n\nclass Theirs(ub.Method):\n    source = 'arXiv 2402.03300'\n"
    )
    capsys.readouterr()
    for name, source in (("mine.py", str(folder / "mine.py")), ("theirs.py", "arXiv 2402.03300"), ("grpo", "arXiv")):
        assert run(["methods", "show", name]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("source")]
        assert line.split(maxsplit=1)[1].startswith(source)


def test_the_skeleton_names_real_hooks(folder: Path) -> None:
    _call(new_method, "my_algo")
    named = set(re.findall(r"def (\w+)\(self", Path("my_algo.py").read_text()))
    assert named <= set(HOOKS)
    assert set(HOOKS) - named == {"setup", "load_state_dict", "train"}


def test_the_skeleton_passes_the_linter(folder: Path) -> None:
    _call(new_method, "my_algo")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "."]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_skeletons_test_checks_the_file_beside_it(folder: Path) -> None:
    _call(new_method, "my_algo")
    text = Path("test_my_algo.py").read_text()
    assert [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)] == ["test_two_steps"]
    assert '"check", str(METHOD)' in text and 'with_name("my_algo.py")' in text


@pytest.mark.slow  # two processes inside a process inside a process
def test_the_skeletons_own_test_passes(folder: Path) -> None:
    _call(new_method, "my_algo")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_my_algo.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "class_name"), [("my_algo", "MyAlgo"), ("GRPOPlus", "GRPOPlus"), ("_2x", "Method2x"), ("_", "Method")]
)
def test_the_class_is_named_after_the_file(folder: Path, name: str, class_name: str) -> None:
    assert _call(new_method, name).exit_code == 0
    assert load(locate(f"{name}.py")).__name__ == class_name


@pytest.mark.parametrize("there", ["my_algo.py", "test_my_algo.py"])
def test_nothing_is_overwritten(folder: Path, there: str) -> None:
    Path(there).write_text("mine")
    assert there in _refused(_call(new_method, "my_algo"))
    assert [path.name for path in folder.iterdir()] == [there]
    assert Path(there).read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("my-algo", "my_algo"),
        ("my_algo.py", "as in my_algo"),
        ("2fast", "my_algo"),
        ("../outside", "as in outside"),
        ("class", "my_algo"),
        ("", "my_algo"),
        ("grpo", "built-in"),
        ("random", "choose another name"),
        ("torch", "choose another name"),
    ],
)
def test_a_name_that_cannot_be_a_module_is_refused(folder: Path, name: str, remedy: str) -> None:
    assert remedy in _refused(_call(new_method, name))
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert "Permission denied" in _refused(_call(new_method, "my_algo"))


# --- docs/guide/your-own-method.md --------------------------------------------------------------------------------


@pytest.mark.checkout
def test_the_worked_example_of_the_documents_runs(folder: Path) -> None:
    text = (ROOT / "docs/guide/your-own-method.md").read_text(encoding="utf-8")
    example = next(
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "second_chance.py" in block
    )
    Path("second_chance.py").write_text(example, encoding="utf-8")
    cls = load(locate("second_chance"))
    method = cls(settings_of(cls, Recipe(group_size=4), {"extra": 6}))
    assert overridden(cls) == ["plan_rollouts", "advantages"]
    groups = [_group("a", 0, 0, 0, 0), _group("b", 0, 1, 0, 0)]
    assert method.plan_rollouts(0, 0, ["a", "b"], []) == [Plan("a", 4), Plan("b", 4)]
    assert method.plan_rollouts(0, 1, ["a", "b"], groups) == [Plan("a", 6)]
    assert method.plan_rollouts(0, 3, ["a", "b"], groups) == []
    advantages = method.advantages(_group("a", 1, *[0] * 9))
    assert np.allclose(advantages, np.array([0.9] + [-0.1] * 9) / np.std([1] + [0] * 9, ddof=1) * 4 / 10, atol=1e-5)
