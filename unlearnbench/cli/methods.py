"""`unlearnbench methods` and `new-method`: what methods there are, and the start of a new one."""

from __future__ import annotations

import json
import keyword
import re
import sys
from pathlib import Path
from typing import Any

import click

_RESERVED = frozenset({"datasets", "numpy", "torch", "transformers", "unlearnbench"})

_METHOD = '''\
"""{class_name}: say here what is new, and why it should reach items that GRPO cannot learn.

Every hook that is not overridden is the reference GRPO; docs/reference/methods.md describes them all.

    unlearnbench check {name}.py              two tiny steps: shapes, track and cost, in seconds
    unlearnbench eval --method {name}.py      train, evaluate, and score against the null control
"""

import unlearnbench as ub


class {class_name}(ub.Method):
    """One sentence for the table of methods."""

    # The highest privilege the method needs: verifier, answer, solution, teacher or labels. Reading more than is
    # declared here raises the track by itself; declaring it is for what the harness cannot see.
    track = "verifier"
    source = "this project"  # the paper, as "arXiv 2402.03300", if there is one

    class Settings(ub.Method.Settings):
        """Hyper-parameters of your own, changed by `--set scale=2`. A default here wins over the split's recipe."""

        scale: float = 1.0

    def advantages(self, rollouts):
        """One number a rollout, shape (n,), or one a token, (n, tokens). `rollouts` is one prompt's group.

        `len(rollouts)`, `rollouts.rewards` and iteration work; a rollout has .completion, .token_ids, .logprobs,
        .reward and .verdict. `self.run` has more: history of an item, other contexts, log-probabilities.
        """
        return self.settings.scale * super().advantages(rollouts)

    # Other hooks, in the order in which a step calls them:
    #
    # def select_items(self, step): ...                           ids of this step's items
    # def plan_rollouts(self, step, round, selected, groups): ... what to draw, round by round; [] ends it
    # def reward(self, rollout): ...                              training only; the verdict cannot be changed
    # def inject(self, groups): ...                               add replayed or foreign rollouts
    # def keep(self, rollouts): ...                               False leaves a group out
    # def augment(self, groups): ...                              other loss contexts, token masks
    # def policy_loss(self, batch): ...                           one loss a token
    # def auxiliary_loss(self, batch): ...                        KL and entropy terms
    # def on_step_end(self, step, metrics): ...
    # def state_dict(self): ...                                   what must survive a resume
'''

_TEST = '''\
"""Two tiny training steps of {name}.py, in seconds: `pytest test_{name}.py`."""

import subprocess
import sys
from pathlib import Path

METHOD = Path(__file__).with_name("{name}.py")


def test_two_steps():
    """Every hook returns what the loop expects, and nothing is infinite or NaN."""
    command = [sys.executable, "-c", "from unlearnbench.cli import main; main()", "check", str(METHOD)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
'''


@click.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def methods(as_json: bool) -> None:
    """List the methods, built in and installed, with their track, source and last measured gain.

    The gain is that of docs/results/experiments.md, on micro at 1x, as a fraction; "not measured" after a change of the
    method or the split.
    """
    rows, problems = _listed()
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        from unlearnbench.cli.console import print_table

        gains = ("not measured" if row["gain"] is None else f"{row['gain']:.3f}" for row in rows)
        print_table(
            ["method", "track", "source", "gain"],
            [(row["name"], row["track"], row["source"], gain) for row, gain in zip(rows, gains, strict=True)],
        )
    if problems:
        from unlearnbench.errors import MethodError

        raise MethodError("; ".join(problems))


@click.command("new-method")
@click.argument("name")
def new_method(name: str) -> None:
    """Write NAME.py, a commented skeleton of a method, and test_NAME.py, its test, in this folder."""
    from unlearnbench.errors import MethodError

    _require_name(name)
    class_name = _class_name(name)
    texts = {f"{name}.py": _METHOD, f"test_{name}.py": _TEST}
    for file in texts:
        if Path(file).exists():
            raise MethodError(f"There is a file {file} here already; choose another name, or move it away.")
    for file, text in texts.items():
        try:
            with Path(file).open("x", encoding="utf-8") as out:
                out.write(text.format(name=name, class_name=class_name))
        except OSError as problem:
            raise MethodError(
                f"cannot write {file} ({problem.strerror}); go to a folder that you may write to"
            ) from problem
    click.echo(f"{name}.py and test_{name}.py are there; try `unlearnbench check {name}.py`")


def _listed() -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each method that loads, and a sentence for each that does not."""
    from importlib.metadata import entry_points

    from unlearnbench.errors import MethodError
    from unlearnbench.methods import BUILT_IN, GROUP, load, locate
    from unlearnbench.methods.gains import present_gain, read_measured

    measured = read_measured()
    rows, problems = [], []
    # A name that is built in hides an entry point of that name, as it does for `eval --method`.
    for name in dict.fromkeys((*BUILT_IN, *sorted(entry.name for entry in entry_points(group=GROUP)))):
        try:
            source = locate(name)
            method = load(source)
        except MethodError as problem:
            problems.append(f"the method {name} cannot be loaded: {problem}")
            continue
        # What an entry point brings was not measured here, whatever its name.
        gain = present_gain(source, measured) if name in BUILT_IN else None
        rows.append({"name": name, "track": method.track, "source": method.source or "not stated", "gain": gain})
    return rows, problems


def _require_name(name: str) -> None:
    """Raise MethodError unless NAME can be a module that hides no other one."""
    from unlearnbench.errors import MethodError
    from unlearnbench.methods import BUILT_IN

    if not name.isidentifier() or keyword.iskeyword(name):
        like = re.sub(r"\W+", "_", name.removesuffix(".py")).strip("_")
        fits = like.isidentifier() and not keyword.iskeyword(like)
        raise MethodError(
            f"{name!r} cannot be the name of a Python module; use letters, digits and underscores, as in "
            f"{like if fits else 'my_algo'}"
        )
    if name in BUILT_IN:
        raise MethodError(
            f"{name} is a built-in method, which --method {name} would go on to mean; choose another name"
        )
    if name in sys.stdlib_module_names or name in _RESERVED:
        raise MethodError(f"{name} is the name of a Python package, which {name}.py would hide; choose another name")


def _class_name(name: str) -> str:
    """MyAlgo for my_algo."""
    joined = "".join(part[0].upper() + part[1:] for part in name.split("_") if part)
    return joined if joined.isidentifier() else f"Method{joined}"
