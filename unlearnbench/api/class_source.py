"""The source of a method's class, as a file that runs by itself: what `evaluate(MyClass)` hands to the harness.

A method's process imports a file and nothing else, so what the class uses of its notebook comes along: imports,
functions, other classes, and plain constants.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import linecache
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from unlearnbench.errors import MethodError

PLAIN = (bool, int, float, str, bytes, type(None))


@dataclass(frozen=True)
class Place:
    """Where a statement comes from: a script's path or a cell's name, and its first line there."""

    file: str
    line: int


@dataclass(frozen=True)
class ClassSource:
    """A method's class as `--method` takes it, and where the lines of a written file come from."""

    spec: str
    path: Path | None = None
    """The written file; None for a class that has a file of its own."""
    places: Mapping[int, Place] = field(default_factory=dict)
    """By the first line of each statement in the written file."""

    def in_place(self, message: str) -> str:
        """A message with the lines of the written file by the user's own file or cell."""
        if self.path is None:
            return message
        name = re.escape(str(self.path))
        told = re.sub(rf"{name}, line (\d+)", lambda found: self._place(int(found[1])) or found[0], message)
        first = next(iter(self.places.values()), None)
        return told if first is None else told.replace(str(self.path), first.file)

    def _place(self, line: int) -> str | None:
        before = [start for start in self.places if start <= line]
        if not before:
            return None
        place = self.places[max(before)]
        return f"{place.file}, line {place.line + line - max(before)}"


def written_source(cls: type[Any], folder: Path) -> ClassSource:
    """The class's own file where it has one, else one that is written to `folder`.

    Raises MethodError where there is no source, or it uses what cannot be written down.
    """
    from unlearnbench.method import Method

    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        raise MethodError(f"{cls!r} is not a method; give a name, a file, or a subclass of unlearnbench.Method")
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    # the file of a script would run the script once more
    if cls.__module__ != "__main__" and file and Path(file).is_file() and cls.__qualname__ == cls.__name__:
        return ClassSource(f"{file}:{cls.__name__}")
    path = folder / f"{_snake(cls.__name__)}.py"
    text, places = _Writer(vars(module) if module is not None else {}).text(cls)
    path.write_text(text, encoding="utf-8")
    return ClassSource(f"{path}:{cls.__name__}", path, places)


class _Writer:
    """Gathers the statements that a class needs from the names of its module."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names
        self.imports: list[str] = []
        self.rest: list[tuple[str, Place | None]] = []
        self.done: set[str] = set()

    def text(self, cls: type[Any]) -> tuple[str, Mapping[int, Place]]:
        """The file's text, and where its statements come from."""
        self._define(cls.__name__, cls, cls.__name__)
        lines, places = [*sorted(self.imports)], dict[int, Place]()
        for source, place in self.rest:
            lines += ["", ""]
            if place is not None:
                places[len(lines) + 1] = place
            lines += source.split("\n")
        return "\n".join([*lines, ""]), places

    def _define(self, name: str, value: Any, needed_by: str) -> None:
        """The statement that gives `name` its value, after all that it uses."""
        if name in self.done:
            return
        self.done.add(name)
        own = getattr(value, "__module__", None) == "__main__" or name == getattr(value, "__name__", None) == needed_by
        if isinstance(value, ModuleType):
            self.imports.append(f"import {value.__name__} as {name}" if value.__name__ != name else f"import {name}")
        elif isinstance(value, type | FunctionType) and own:
            source, place = _source_of(value)
            for used in _used(source):
                if used in self.names and used != name:
                    self._define(used, self.names[used], name)
            self.rest.append((source, place))
        elif _is_plain(value):
            self.rest.append((f"{name} = {value!r}", None))
        elif (found := _where(value)) is not None:
            module, attribute = found
            self.imports.append(f"from {module} import {attribute}" + ("" if attribute == name else f" as {name}"))
        else:
            raise MethodError(
                f"{needed_by} uses {name} ({type(value).__name__}), which cannot be written into its file; make it a "
                "setting or a constant, or put the method into a file and give its path"
            )


def _source_of(value: type[Any] | FunctionType) -> tuple[str, Place]:
    """The text of a class or function, from its file or from the cell that defined it, and the place of its first line.

    Raises MethodError.
    """
    try:
        lines, first = inspect.getsourcelines(value)
        file = inspect.getsourcefile(value) or inspect.getfile(value)
        return textwrap.dedent("".join(lines)).strip(), Place(_cell_or(file), max(first, 1))
    except (OSError, TypeError):
        pass
    wanted = ast.ClassDef if isinstance(value, type) else ast.FunctionDef
    for name in reversed(list(linecache.cache)):  # IPython keeps its cells there, the newest last
        lines = linecache.getlines(name)
        text = "".join(lines)
        if value.__name__ not in text:
            continue
        try:
            found = [node for node in ast.parse(text).body if isinstance(node, wanted) and node.name == value.__name__]
        except SyntaxError:
            continue
        if found:
            first = min([found[-1].lineno, *(node.lineno for node in found[-1].decorator_list)])
            return "".join(lines[first - 1 : found[-1].end_lineno]).strip(), Place(_cell_or(name), first)
    raise MethodError(
        f"the source of {value.__name__} cannot be found (it was not defined in a file or a notebook cell); write it "
        "to a file such as my_algo.py and give that path"
    )


def _cell_or(file: str) -> str:
    """The name of the notebook cell that IPython keeps as that file, such as "cell In[3]"; else the file."""
    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    told = None if found is None else getattr(found.compile, "format_code_name", lambda name: None)(file)
    return file if told is None else " ".join([str(told[0]).lower(), *map(str, told[1:])])


def _used(source: str) -> list[str]:
    """Names that a statement reads and does not bind itself, builtins left out, in alphabetical order."""
    names = {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    return sorted(names - set(dir(builtins)))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | set | frozenset):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(_is_plain(one) for pair in value.items() for one in pair)
    return type(value) in PLAIN


def _where(value: Any) -> tuple[str, str] | None:
    """Module and name by which a value can be imported."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "." in name:
        return None
    return (module, name) if getattr(sys.modules.get(module), name, None) is value else None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
