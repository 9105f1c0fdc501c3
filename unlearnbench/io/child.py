"""Python processes of our own: each runs one function of the package and imports nothing from the working folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = """
import importlib, importlib.util, json, sys
root, search, target, arguments = json.loads(sys.argv[1])
sys.path[:] = search
found = importlib.util.spec_from_file_location(
    "unlearnbench", root + "/unlearnbench/__init__.py", submodule_search_locations=[root + "/unlearnbench"]
)
package = sys.modules["unlearnbench"] = importlib.util.module_from_spec(found)
found.loader.exec_module(package)
module, _, name = target.partition(":")
sys.exit(getattr(importlib.import_module(module), name)(*arguments))
"""
"""Our own package is the one that this process runs, wherever another one is installed."""


def search_path() -> list[str]:
    """Where a child finds modules: as this process does, without the working folder, our own package after libraries.

    So a file `queue.py` or `torch.py` that lies about where a command is run is never taken for the library.
    """
    here = str(Path.cwd())
    entries = [entry for entry in sys.path if entry and str(Path(entry).resolve()) not in (here, _ROOT)]
    found = list(dict.fromkeys(entries))
    # An editable install of another checkout must not replace the package that runs.
    copies = [place for place, entry in enumerate(found) if (Path(entry) / "unlearnbench" / "__init__.py").is_file()]
    place = copies[0] if copies else len(found)
    return [*found[:place], _ROOT, *found[place:]]


def command(target: str, *arguments: str | int | float, isolated: bool = True, also: Sequence[str] = ()) -> list[str]:
    """The command line that calls `target` ("module:function") and exits with what it returns.

    `isolated` starts Python with -I, which ignores PYTHON* variables, PYTHONHASHSEED among them; `also` is searched
    for modules last.
    """
    flags = ["-I"] if isolated else ["-P", "-s"]
    return [sys.executable, *flags, "-c", _BOOT, json.dumps([_ROOT, [*search_path(), *also], target, list(arguments)])]
