"""What a method's source says of itself: one sentence on what it does, and its paper. Read as text, never executed."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_LONGEST = 140  # characters of the sentence that a row of the board has room for
_MOST_BYTES = 1_000_000
_END = re.compile(r"(?<=[^\s.]{3}[.!?])\s")  # not after 'Dr.' or 'e.g.'
_ARXIV = re.compile(r"arxiv[ :]*(\d{4}\.\d{4,5})(?:v\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class MethodSource:
    """`does` is empty and `paper` None where the source does not say."""

    does: str = ""
    paper: str | None = None
    """Address of the paper on arXiv."""


def read_source(path: Path, class_name: str = "") -> MethodSource:
    """The first sentence of the file's docstring (else of its class), and the paper that its class names as `source`.

    A file that is missing, large or no Python says nothing.
    """
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return MethodSource()
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return MethodSource()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    named = [node for node in classes if node.name == class_name] or classes
    written = ast.get_docstring(tree) or next(filter(None, map(ast.get_docstring, named)), "")
    papers = [found[1] for node in named for text in _stated(node) if (found := _ARXIV.search(text))]
    return MethodSource(_first_sentence(written), f"https://arxiv.org/abs/{papers[0]}" if papers else None)


def _stated(of: ast.ClassDef) -> Iterator[str]:
    """Texts that a class sets as its `source`."""
    for node in of.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if any(isinstance(one, ast.Name) and one.id == "source" for one in targets) and isinstance(value, ast.Constant):
            yield str(value.value)


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return textwrap.shorten(_END.split(paragraph, maxsplit=1)[0], _LONGEST, placeholder=" …")
