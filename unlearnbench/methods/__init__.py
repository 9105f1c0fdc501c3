"""The built-in methods, one file each, and how `--method` finds a method.

`ub.methods()` lists them. Returns: for each its `name`, `track`, `source` (a paper, or who made it) and `gain` (as
measured here, or None). Example: `[of.name for of in ub.methods() if of.track == "verifier"]`.

`locate` names the file of a method without running it, so that a command can name and hash what it is given;
`load` runs the file, inside a training process.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from unlearnbench.errors import MethodError, MethodNotFound, first_line, raised_at

BUILT_IN = (
    "grpo",
    "dr_grpo",
    "rloo",
    "dapo",
    "clip_higher",
    "no_kl",
    "gspo",
    "maxrl",
    "pass_at_k",
    "negative_only",
    "positive_only",
    "unlikeliness",
    "dars",
    "knapsack",
    "rl_zvp",
    "outcome_exploration",
    "replay",
    "remind",
    "self_distill",
    "drift",
    "curriculum",
    "dense_then_binary",
    "answer_hint",
    "prefix",
    "pope",
    "hints",
    "mixed_policy",
    "opsd",
    "regft",
    "sft_then_rl",
    "distill",
    "curriculum_easy_first",
    "only_unlearnable",
    "sft_unlearnable",
    "similar_problems",
    "sub_problems",
    "mid_training",
    "no_training",
    "random_reward",
    "format_reward",
)
"""By track, from least to most privileged, and then the controls."""
GROUP = "unlearnbench.methods"


@dataclass(frozen=True)
class MethodSource:
    """Where a method's code lies: a module or a file, and optionally the class in it."""

    name: str
    file: str
    module: str | None
    class_name: str | None
    shown: str | None = None
    """The file that messages name, where `file` is a copy of it."""

    @property
    def hash(self) -> str:
        """sha256 of the source file."""
        return hashlib.sha256(Path(self.file).read_bytes()).hexdigest()

    @property
    def built_in(self) -> bool:
        """Whether it is a method of this package."""
        return self.module is not None and self.module.startswith(f"{__name__}.")

    def copied(self, copy: Path) -> MethodSource:
        """The same method run from a copy of its file, so that a change of the file changes no run that has begun."""
        return self if self.built_in else replace(self, file=str(copy.resolve()), shown=self.file)


def locate(spec: str) -> MethodSource:
    """Resolve a built-in name, an entry point, FILE.py[:Class], MODULE:Class, or `my_algo` for ./my_algo.py.

    Raises MethodNotFound, listing what was tried.
    """
    tried: list[str] = []
    target, _, class_name = spec.partition(":")
    wanted = class_name or None
    if target.endswith(".py"):
        path = Path(target)
        if path.is_file():
            return MethodSource(path.stem, str(path.resolve()), None, wanted)
        raise MethodNotFound(f"There is no method file {target}; `unlearnbench new-method {path.stem}` makes one.")
    if not class_name:
        if target in BUILT_IN:
            module = f"{__name__}.{target}"
            return MethodSource(target, _file_of(module) or "", module, None)
        tried.append(f"built-in methods ({', '.join(BUILT_IN)})")
        for entry in importlib.metadata.entry_points(group=GROUP):
            if entry.name == target:
                module, _, attribute = entry.value.partition(":")
                file = _file_of(module)
                if file is None:
                    raise MethodNotFound(
                        f"The entry point {target} names {module}, which is not installed; reinstall it."
                    )
                return MethodSource(target, file, module, attribute or None)
        tried.append(f"entry points of group {GROUP}")
        path = Path(f"{target}.py")
        if path.is_file():
            return MethodSource(path.stem, str(path.resolve()), None, None)
        tried.append(f"the file ./{path}")
    else:
        file = _file_of(target)
        if file:
            return MethodSource(class_name, file, target, class_name)
        tried.append(f"the module {target}")
    near = difflib.get_close_matches(target, BUILT_IN, 2)
    near.sort(key=lambda name: sorted(name) != sorted(target))  # letters in another order are the likeliest mistake
    meant = f"; did you mean {' or '.join(map(repr, near))}?" if near else ";"
    raise MethodNotFound(
        f"There is no method {spec!r}{meant} Tried {'; '.join(tried)}. `unlearnbench methods` lists what there is, and "
        f"`unlearnbench new-method {target}` makes a new one."
    )


def load(source: MethodSource) -> type[Any]:
    """Run a method's file and return its class.

    Raises MethodError where the file does not run, holds no Method, or holds several and none was named, or where its
    track is none.
    """
    from unlearnbench.records import TRACKS

    where = source.module or source.shown or source.file
    found = _class_of(source, where)
    if found.track not in TRACKS:
        raise MethodError(f"{where}: {found.__name__}.track is {found.track!r}; it must be one of {', '.join(TRACKS)}.")
    return found


def _class_of(source: MethodSource, where: str) -> type[Any]:
    from unlearnbench.method import Method

    try:
        if source.module and source.shown is None:
            module = importlib.import_module(source.module)
        else:
            name = source.module or f"_method_{Path(source.shown or source.file).stem}"
            spec = importlib.util.spec_from_loader(name, _Copy(name, source.file, source.shown))
            if spec is None or spec.loader is None:
                raise ImportError(f"{source.file} is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        place = raised_at(problem, [source.file])
        at = "" if place is None else f", {place}"
        raise MethodError(
            f"{where} does not run ({type(problem).__name__}: {first_line(problem)}{at}); fix this and try again."
        ) from problem
    if source.class_name:
        found = getattr(module, source.class_name, None)
        if not (inspect.isclass(found) and issubclass(found, Method)):
            raise MethodError(
                f"{where} has no subclass of unlearnbench.Method named {source.class_name}; name one that is."
            )
        return found
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if not own:
        raise MethodError(f"{where} defines no subclass of unlearnbench.Method; write one (`unlearnbench new-method`).")
    if len(own) > 1:
        names = ", ".join(cls.__name__ for cls in own)
        raise MethodError(f"{where} defines several methods ({names}); say which one, as in {where}:{own[0].__name__}.")
    return own[0]


class _Copy(importlib.machinery.SourceFileLoader):
    """Runs a file whose frames carry another one's name, so that messages name the file that its author knows."""

    def __init__(self, name: str, path: str, shown: str | None) -> None:
        super().__init__(name, path)
        self._shown = shown or path

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        return super().source_to_code(data, self._shown, _optimize=_optimize)

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)  # never from a cache of compiled files


def _file_of(module: str) -> str | None:
    """The source file of a module, without running it (its parent packages do run)."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # last: a file that lies about there must not be taken for a library
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec and spec.origin and Path(spec.origin).is_file() else None


class _Callable(ModuleType):
    """`unlearnbench.methods()` lists the methods, and `unlearnbench.methods` stays the package that holds them."""

    def __call__(self) -> Any:
        return importlib.import_module("unlearnbench.api.results").methods()


sys.modules[__name__].__class__ = _Callable
