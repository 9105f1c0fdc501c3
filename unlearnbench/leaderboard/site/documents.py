"""The documents of the checkout as pages of the site, so that the board's links to definitions and rules work offline.

    README.md, docs/**/*.md, leaderboard/RULES.md → documents/<the same path>.html, with the pictures that they show

Markdown is read by markdown-it. Links among these documents lead to their pages; links to other files of the checkout
(code, notebooks) become plain text, since the site does not have them.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import urldefrag

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

FOLDER = "documents"
SOURCES = ("README.md", "docs/**/*.md", "leaderboard/RULES.md")
NAMED = {
    "docs/README.md": "All documents",
    "README.md": "README",
}
"""Titles of documents whose first heading says too little."""


@dataclass(frozen=True)
class Document:
    """A page: its address in the site, its title, its text as HTML, and the pictures (paths in the checkout)."""

    name: str
    title: str
    content: Markup
    pictures: Sequence[str]


def page_name(path: str) -> str:
    """The address in the site of a document, a path in the checkout."""
    return f"{FOLDER}/{path.removesuffix('.md')}.html"


def documents(root: Path) -> list[Document]:
    """The documents of the checkout at `root`, in the order of their paths; none where it has no `docs`."""
    if not (root / "docs").is_dir():
        return []
    found = sorted({path.relative_to(root).as_posix() for pattern in SOURCES for path in root.glob(pattern)})
    return [_Page(root, path, set(found)).document() for path in found]


@dataclass
class _Page:
    root: Path
    path: str
    known: set[str]
    pictures: list[str] = field(default_factory=list)

    def document(self) -> Document:
        parser = MarkdownIt("commonmark", {"html": True}).enable("table")
        tokens = parser.parse((self.root / self.path).read_text(encoding="utf-8"))
        title = NAMED.get(self.path) or next(_titles(tokens), self.path)
        self._name_headings(tokens)
        for token in tokens:
            if token.children:
                token.children = list(self._resolved(token.children))
        tokens = list(_as_the_site_has_them(tokens))
        content = parser.renderer.render(tokens, parser.options, {})
        return Document(page_name(self.path), title, Markup(content), self.pictures)

    def _name_headings(self, tokens: Sequence[Token]) -> None:
        """Anchors as GitHub makes them, on which the documents' links rest."""
        seen: Counter[str] = Counter()
        for opening, inline in pairwise(tokens):
            if opening.type == "heading_open":
                name = re.sub(r"[^\w\- ]", "", _text(inline).lower()).replace(" ", "-")
                opening.attrSet("id", name if not seen[name] else f"{name}-{seen[name]}")
                seen[name] += 1

    def _resolved(self, children: Sequence[Token]) -> Iterator[Token]:
        """The same with addresses that hold in the site; a link to what the site has not is its text alone."""
        dropped = 0
        for token in children:
            if token.type == "link_open":
                address = self._address(str(token.attrGet("href") or ""))
                if address is None:
                    dropped += 1
                    continue
                token.attrSet("href", address)
            elif token.type == "link_close" and dropped:
                dropped -= 1
                continue
            elif token.type == "image":
                self._keep(str(token.attrGet("src") or ""))
            yield token

    def _address(self, link: str) -> str | None:
        if link.startswith(("#", "https://", "http://")):
            return link
        target, anchor = urldefrag(link)
        there = self._place(target)
        if there not in self.known:
            return None
        here = posixpath.dirname(page_name(self.path))
        return posixpath.relpath(page_name(there), here) + (f"#{anchor}" if anchor else "")

    def _keep(self, picture: str) -> None:
        """Note a picture; its address is the same beside the page as it is beside the document."""
        if (self.root / self._place(picture)).is_file():
            self.pictures.append(self._place(picture))

    def _place(self, target: str) -> str:
        return posixpath.normpath(posixpath.join(posixpath.dirname(self.path), target))


def _as_the_site_has_them(tokens: Sequence[Token]) -> Iterator[Token]:
    """Tables that scroll by themselves and say what their head cells are, blocks of code that a keyboard can scroll."""
    tables = 0
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            tables += 1
            label = f'<div class="scroll" tabindex="0" role="region" aria-label="table {tables}">'
            yield Token("html_block", "", 0, content=label)
        if token.type == "th_open":
            if tokens[place + 1].content:
                token.attrSet("scope", "col")
            else:  # a head cell without words is no head cell
                token.tag = "td"
        if token.type == "th_close" and not tokens[place - 1].content:
            token.tag = "td"
        if token.type == "fence":
            token.type, token.content = "html_block", _code(token.content)
        yield token
        if token.type == "table_close":
            yield Token("html_block", "", 0, content="</div>\n")


def _code(content: str) -> str:
    return str(Markup('<pre tabindex="0"><code>{}</code></pre>\n').format(content))


def _titles(tokens: Sequence[Token]) -> Iterator[str]:
    return (_text(inline) for opening, inline in pairwise(tokens) if opening.tag == "h1")


def _text(inline: Token) -> str:
    return "".join(child.content for child in inline.children or () if child.type in ("text", "code_inline"))
