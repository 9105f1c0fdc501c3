"""`unlearnbench methods` and `new-method`: what methods there are, and the start of a new one."""

from __future__ import annotations

import inspect
import json
import keyword
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unlearnbench.methods import MethodSource

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

    # The highest privilege the method needs: verifier, process, answer, solution, teacher or labels. Reading more than
    # is declared here raises the track by itself; declaring it is for what the harness cannot see.
    track = "verifier"
    source = "this project"  # the paper, as "arXiv 2402.03300", if there is one

    class Settings(ub.Method.Settings):
        """Hyper-parameters of your own, changed by `--set scale=2`. A default here wins over the split's recipe."""

        scale: float = 1.0

    def advantages(self, rollouts):
        """One number per rollout, shape (n,), or one per token, (n, tokens). `rollouts` is one prompt's group.

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
    # def augment(self, groups): ...                              other loss contexts, token masks, a teacher's context
    # def policy_loss(self, batch): ...                           one loss per token
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


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group("methods", invoke_without_command=True)
@as_json
@click.pass_context
def methods(context: click.Context, as_json: bool) -> None:
    """List the methods, built in and installed: what each does, its track, source and last measured gain.

    The gain over the null control is that of docs/results/experiments.md, on micro at 1x: in points in the table, as
    a fraction in JSON; none once method or split changed. `methods show NAME` prints all about one.
    """
    if context.invoked_subcommand is None:
        _print_all(as_json)


@methods.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The same list as `unlearnbench methods`."""
    _print_all(as_json)


def _print_all(as_json: bool) -> None:
    from unlearnbench.methods.listing import listed

    rows, problems = listed()
    if as_json:
        shown = [row.model_dump(mode="json", exclude={"does"}) for row in rows]
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
    else:
        from unlearnbench.cli.console import print_sentence, print_table

        print_table(
            ["method", "does", "track", "source", "gain"],
            [(row.name, row.does, row.track, row.source, _gain(row.gain)) for row in rows],
            right=["gain"],
            whole=["method", "track", "source"],
        )
        print_sentence("gain: over GRPO re-run on micro at 1x, in points; -: not measured as method and split are now")
    if problems:
        from unlearnbench.errors import MethodError

        raise MethodError("; ".join(problems))


@methods.command("show")
@click.argument("name")
@as_json
def show(name: str, as_json: bool) -> None:
    """Everything about the method NAME: idea, formula and paper, hooks, settings, what it may read, measured gain.

    NAME is what `eval --method` takes: a built-in name, an entry point, FILE.py, or MODULE:Class.
    """
    found = _described(name)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False, default=str))
        return
    click.echo(f"{found['name']}: {found['does']}\n")
    click.echo(found["description"] + "\n")
    lines = {
        "track": found["track"],
        "source": found["source"],
        "may read": ", ".join(found["may_read"]) or "nothing privileged",
        "hooks": [f"{hook}: {does}" if does else hook for hook, does in found["hooks"].items()] or "none: it is GRPO",
        "settings": [f"{key} = {json.dumps(value, default=str)}" for key, value in found["settings"].items()]
        or "the recipe's",
        "gain": _measured_gain(found["measured"]),
        "file": found["file"],
    }
    for label, value in lines.items():
        first, *more = [value] if isinstance(value, str) else value
        click.echo(f"{label:<9} {first}")
        for line in more:
            click.echo(f"{'':<9} {line}")


def _described(name: str) -> dict[str, Any]:
    """What `methods show` prints, by the method's own docstrings. Raises MethodNotFound, MethodError."""
    from unlearnbench.method import overridden
    from unlearnbench.methods import load, locate
    from unlearnbench.methods.gains import measured_gain, read_measured
    from unlearnbench.methods.listing import first_line
    from unlearnbench.methods.source_reading import privileged_reads

    source = locate(name)
    method = load(source)
    module = sys.modules[method.__module__]
    hooks = {hook: first_line(getattr(method, hook)) for hook in overridden(method)}
    declared = {key: field.get_default() for key, field in _declared(method).items()}
    measured = measured_gain(source, read_measured()) if source.built_in else None
    text = inspect.cleandoc(module.__doc__ or method.__doc__ or "")
    return {
        "name": source.name,
        "does": first_line(method).rstrip(".") or "-",
        "description": "\n\n".join(textwrap.fill(part, 100) for part in text.split("\n\n")),
        "track": method.track,
        "source": _source(method, source),
        "may_read": privileged_reads(method),
        "hooks": hooks,
        "settings": declared,
        "measured": None if measured is None else measured.model_dump(mode="json"),
        "file": source.file if not source.built_in else f"unlearnbench/methods/{source.name}.py",
    }


def _source(method: Any, found: MethodSource) -> str:
    """The paper that a method names, else the file of one that is not built in."""
    from unlearnbench.method import Method

    if not found.built_in and method.source == Method.source:
        return f"{found.file} (no paper is named)"
    return method.source or "not stated"


def _declared(method: Any) -> Mapping[str, Any]:
    """The settings that a method declares itself, its own and changed fields of the recipe."""
    from unlearnbench.records import Recipe

    names = [
        name
        for cls in reversed(method.Settings.__mro__)
        if issubclass(cls, Recipe) and cls is not Recipe
        for name in inspect.get_annotations(cls)
    ]
    return {name: method.Settings.model_fields[name] for name in names}


def _gain(gain: float | None) -> str:
    return "-" if gain is None else f"{100 * gain:+.1f}"


def _measured_gain(measured: Mapping[str, Any] | None) -> str:
    if measured is None:
        return "not measured as method and split are now"
    interval = measured["interval_families"]
    within = f", 95 % interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else ""
    where = f"on {measured['split']} at {measured['budget']:g}x, {measured['seeds']} seeds"
    return f"{_gain(measured['gain'])} points over the null control{within}; {where}"


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
