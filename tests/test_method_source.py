"""How a method's own file is run, behind walls and from a copy: its imports, and what messages call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from unlearnbench.errors import MethodError
from unlearnbench.harness.trial_run import trial
from unlearnbench.io.files import write_text
from unlearnbench.methods import locate
from unlearnbench.splits import Split

TINY = {"prompts_per_step": 4, "group_size": 4, "updates_per_batch": 1}

MINE = """
import unlearnbench as ub
from {tools} import deep
import beside

class Mine(ub.Method):
    def keep(self, rollouts):
        return beside.KEEP and deep(rollouts)
"""
TOOLS = '''
def deep(rollouts):
    """Fails in the second step."""
    if rollouts.iteration:
        raise ValueError("deep down")
    return True
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a method as a file, and as a module of a package that imports from it."""
    write_text(tmp_path / "beside.py", "KEEP = True\n")
    write_text(tmp_path / "mine.py", MINE.format(tools="tools"))
    write_text(tmp_path / "tools.py", TOOLS)
    write_text(tmp_path / "package/__init__.py", "")
    write_text(tmp_path / "package/mine.py", MINE.format(tools=".tools"))
    write_text(tmp_path / "package/tools.py", TOOLS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("spec", "place"), [("mine.py", "tools.py"), ("package.mine:Mine", "package/tools.py")])
def test_a_method_finds_what_lies_beside_it_and_an_error_names_the_file_of_its_author(
    spec: str, place: str, folder: Path, small_split: Split
) -> None:
    """Its second step fails, so that the first has found all that the method imports."""
    recipe = {**TINY, "drop_zero_signal": False}
    with pytest.raises(MethodError, match=r"Mine\.keep raised ValueError: deep down") as caught:
        trial(small_split, locate(spec), "check", folder / "trial", 2, {}, recipe)
    assert (folder / "trial/run/method.py").is_file()  # it ran from this copy
    assert f"({folder / place}, line 5)" in str(caught.value)
    assert "method.py" not in str(caught.value)
