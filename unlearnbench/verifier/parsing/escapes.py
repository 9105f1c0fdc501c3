"""Repairs of text that was escaped twice, or unescaped once too often, before it reached a data set.

>>> repaired("\\\\\\\\sqrt{5}")
'\\\\sqrt{5}'
>>> repaired("\\x0crac{1}{2}")
'\\\\frac{1}{2}'
"""

from __future__ import annotations

import re

_COMMANDS = (
    "[dtc]?frac|sqrt|pi|text(?:bf|rm|it)?|left|right|cdots?|times|div|leq?|leqslant|geq?|geqslant|neq?|in|infty|alpha|"
    "beta|gamma|delta|epsilon|theta|phi|varphi|lambda|mu|omega|sigma|rho|circ|degree|cup|cap|pm|mp|math(?:rm|bf|bb|cal)|"
    "boxed|q?quad|sin|cos|tan|cot|sec|csc|log|ln|lg|sum|prod|int|[dt]?binom|overline|angle|triangle|l?dots|lfloor|rfloor|"
    "lceil|rceil|setminus|emptyset|varnothing|mid|to|approx|equiv|pmod|bmod|vec|hat|operatorname|displaystyle"
)
_ESCAPED_TWICE = re.compile(rf"(?<!\\)\\{{2,}}+(?=(?:{_COMMANDS})(?![A-Za-z])|[{{}}%$])")
_ENVIRONMENT = re.compile(r"\\begin\s?\{")
_ENVIRONMENT_ESCAPED_TWICE = re.compile(r"(?<!\\)\\\\begin\s?\{")
_UNESCAPED = re.compile(
    "\x0c(?=rac|orall|lat)|\x08(?=oxed|inom|eta|egin|ar|mod|ig|f[ {]|ullet)"
    "|\x0b(?=ec|ee|ar|ert)|\x07(?=lpha|ngle|pprox|rc)"
    "|\t(?=ext|imes|heta|an[^a-z]|frac|au|riangle|binom|o[^a-z])|\r(?=ight|ho|angle|floor|ceil|m[ {])"
    "|\n(?=eq|abla|ot[^a-z]|mid)"
)
_LETTER = {"\x0c": "f", "\x08": "b", "\x0b": "v", "\x07": "a", "\t": "t", "\r": "r", "\n": "n"}


def repaired(text: str) -> str:
    r"""`text` with `\\frac` as `\frac`, and with the control characters that `\f`, `\t`, ... became as commands again.

    In an environment `\\` separates rows, so there it is halved only where `\\begin` shows that all of it was doubled.
    """
    if "\\\\" in text:
        if _ENVIRONMENT_ESCAPED_TWICE.search(text):
            text = text.replace("\\\\", "\\")
        elif not _ENVIRONMENT.search(text):
            text = _ESCAPED_TWICE.sub(r"\\", text)
    if not text.isprintable():
        text = _UNESCAPED.sub(lambda found: "\\" + _LETTER[found.group()], text)
    return text
