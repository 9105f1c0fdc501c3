"""The Python interface: names, classes as methods, budgets, and what a result can do."""

from __future__ import annotations

import linecache
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_run import make_result, make_run, make_split

import unlearnbench as ub
from unlearnbench.api.arguments import multiple_of
from unlearnbench.api.class_source import written_source
from unlearnbench.errors import MethodError, RunError
from unlearnbench.io import files, tables
from unlearnbench.methods import locate
from unlearnbench.records import Record, Result
from unlearnbench.reports.headline import verdict
from unlearnbench.reports.run_report import write_report


def test_tab_offers_the_public_names_and_no_others() -> None:
    assert dir(ub) == sorted(ub.__all__) and "Any" not in dir(ub)
    wanted = {"score", "check", "plan", "curate", "diagnose", "compare", "submit", "export", "methods", "validate"}
    assert wanted | {"evaluate", "read_run", "Plan", "LossBatch"} <= set(dir(ub))


@pytest.mark.parametrize("name", sorted(name for name, module in ub._PUBLIC.items() if module.startswith("api.")))
def test_every_function_is_documented(name: str) -> None:
    told = getattr(ub, name).__doc__
    for part in ("Args:", "Returns:", "Raises:", "Example:"):
        assert part in told, f"{name}: {part}"


def test_what_methods_are_written_with_is_documented() -> None:
    assert all(part in str(ub.Plan.__doc__) for part in ("Args:", "Raises:", "Example:"))
    assert all(part in str(ub.LossBatch.__doc__) for part in ("Returns:", "Raises:", "Example:"))
    assert all(part in str(ub.methods.__doc__) for part in ("Returns:", "Example:"))


def test_methods_is_a_package_that_can_be_called() -> None:
    import unlearnbench.methods.grpo

    assert ub.methods is sys.modules["unlearnbench.methods"]
    assert unlearnbench.methods.grpo.__name__ == "unlearnbench.methods.grpo"
    rows = {row.name: row for row in ub.methods()}
    assert rows["grpo"].track == "verifier" and "2402.03300" in rows["grpo"].source


@pytest.mark.parametrize(("given", "multiple"), [("1x", 1.0), ("0.5", 0.5), (4, 4.0)])
def test_budgets(given: str | float, multiple: float) -> None:
    assert multiple_of(given) == multiple


@pytest.mark.parametrize("given", ["x", "0x", -1, "nan", "2000x"])
def test_what_is_no_budget(given: str | float) -> None:
    with pytest.raises(RunError, match="not a budget"):
        multiple_of(given)


# --- classes as methods -----------------------------------------------------------------------------------------


def cells(*sources: str) -> dict[str, Any]:
    """What a notebook's cells define, run in `__main__` as IPython runs them, their text kept in linecache."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for stale in [name for name in linecache.cache if name.startswith("<ipython-input")]:
        del linecache.cache[stale]
    for number, source in enumerate(sources):
        name = f"<ipython-input-{number}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), names)
    return names


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs cells as the module `__main__`."""

    def run(*sources: str) -> dict[str, Any]:
        names = cells(*sources)
        module = ModuleType("__main__")
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, "__main__", module)
        return names

    return run


CELLS = (
    "import numpy as np\nimport unlearnbench as ub\nfrom math import sqrt as root\n",
    "SCALE = (2.0, 3)\n\ndef weight(x):\n    return np.asarray(x) * root(SCALE[0])\n",
    "class MyAlgo(ub.Method):\n    class Settings(ub.Method.Settings):\n        bonus: float = 0.5\n\n"
    "    def advantages(self, rollouts):\n        return weight(super().advantages(rollouts))\n",
)


def test_a_class_of_a_cell_is_written_with_all_that_it_uses(main: Any, tmp_path: Path) -> None:
    spec = written_source(main(*CELLS)["MyAlgo"], tmp_path).spec
    assert spec == f"{tmp_path / 'my_algo.py'}:MyAlgo"
    text = (tmp_path / "my_algo.py").read_text()
    for line in ("import numpy as np", "from math import sqrt as root", "SCALE = (2.0, 3)", "def weight(x):"):
        assert text.count(line) == 1
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import my_algo; print(my_algo.weight([1.0])[0] ** 2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(2.0)
    assert locate(spec).name == "my_algo"


def test_a_class_that_was_defined_twice_is_the_last_one(main: Any, tmp_path: Path) -> None:
    later = CELLS[2].replace("bonus: float = 0.5", "bonus: float = 0.75")
    written_source(main(*CELLS, later)["MyAlgo"], tmp_path)
    assert "0.75" in (tmp_path / "my_algo.py").read_text()


def test_errors_name_the_cell_and_not_the_file_that_was_written_from_it(main: Any) -> None:
    cell = CELLS[2].replace("return weight(super", "return self.run.nothing(super")
    with pytest.raises(MethodError, match=r"nothing.*\(<ipython-input-2>, line 6\)"):
        ub.check(main(*CELLS[:2], cell)["MyAlgo"])
    with pytest.raises(MethodError, match=r"ZeroDivisionError.*\(<ipython-input-1>, line 4\)"):
        ub.check(main(CELLS[0], CELLS[1].replace("return np", "1 / 0\n    return np"), CELLS[2])["MyAlgo"])


SCRIPT = """
import sys
import unlearnbench as ub

class Mine(ub.Method):
    def advantages(self, rollouts):
        return ub.load_split("micro").items

if __name__ == "__main__":
    try:
        ub.evaluate(Mine, quick=True, out=sys.argv[1])
    except ub.UnlearnBenchError as problem:
        print(problem)
"""


def test_a_script_shows_progress_and_errors_by_its_own_lines(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, str(script), str(tmp_path / "run")], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and f"({script}, line 7)" in done.stdout
    assert done.stderr.startswith(f"run: {tmp_path / 'run'} (`unlearnbench status")


def test_a_class_of_a_file_is_that_file(tmp_path: Path) -> None:
    from unlearnbench.methods.dapo import Dapo

    assert written_source(Dapo, tmp_path).spec == f"{sys.modules[Dapo.__module__].__file__}:Dapo"
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_down_is_named(main: Any, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"MyAlgo uses weight \(object\), which cannot be written"):
        written_source(main(CELLS[0], "weight = object()\n", CELLS[2])["MyAlgo"], tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec("import unlearnbench as ub\nclass Nowhere(ub.Method):\n    pass\n", names)
    with pytest.raises(MethodError, match="source of Nowhere cannot be found"):
        written_source(names["Nowhere"], tmp_path)
    with pytest.raises(MethodError, match="is not a method"):
        written_source(int, tmp_path)


# --- results ----------------------------------------------------------------------------------------------------


def test_a_result_prints_its_sentence_and_becomes_a_frame_and_a_figure(tmp_path: Path) -> None:
    split, folder = make_split(tmp_path / "tiny", probes=True), tmp_path / "run"
    make_run(folder, split, converts=20)
    stated = make_result(split, 20, gain=0.3, interval=(0.1, 0.5))
    assert str(stated) == verdict(stated).sentence
    with pytest.raises(RunError, match="does not know the items"):
        stated.to_frame()
    files.write_json(folder / "result.json", stated)
    write_report(folder, split, stated)
    result = ub.read_run(folder).result
    frame = result.to_frame()
    assert len(frame) == len(split.items) and list(frame["item_id"][:2]) == ["item-000", "item-001"]
    assert [len(part) for part in frame["correct"][:2]] == [3, 3]
    assert frame[frame.group == "unlearnable"].seeds_converted.sum() == 60
    drawn = result.plot()
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()] == ["vs GRPO re-run"]
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert result == tables.read_json_record(folder / "result.json", Result) and "_folder" not in result.model_dump()


def test_a_records_own_names_are_all_that_dir_shows() -> None:
    class Small(Record):
        one: int = 1

        @property
        def two(self) -> int:
            return 2

    assert dir(Small()) == ["one", "two"]
