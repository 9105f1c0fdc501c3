r"""Characters outside ASCII, and HTML, as the LaTeX that means the same.

    >>> latex_of("x≥½ 或 x=5厘米")
    'x\\ge \\frac{1}{2}  \\text{ or }  x=5 cm '

Chinese data sets write full-width signs, `或` and units such as 厘米; others keep HTML tags of the page they came from.
"""

from __future__ import annotations

# ruff: noqa: RUF001 - signs that look alike are what this module is about
import html
import re
import unicodedata

_SIGNS = {
    "\u2212\u2013\u2010\u2011\ufe63": "-",
    "\u2044\u2215": "/",
    "×": "\\times ",
    "·⋅∙•": "\\cdot ",
    "÷": "\\div ",
    "∞": "\\infty ",
    "≤⩽≦": "\\le ",
    "≥⩾≧": "\\ge ",
    "≠": "\\ne ",
    "≈≃≅≒": "\\approx ",
    "≡": "\\equiv ",
    "±": "\\pm ",
    "∓": "\\mp ",
    "∪⋃": "\\cup ",
    "∩⋂": "\\cap ",
    "∈": "\\in ",
    "∉": "\\notin ",
    "∖": "\\setminus ",
    "∅": "\\emptyset ",
    "∀": "\\forall ",
    "∃": "\\exists ",
    "∧": "\\wedge ",
    "∨": "\\vee ",
    "⊥": "\\perp ",
    "∥": "\\parallel ",
    "→": "\\to ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}",
    "ℚ": "\\mathbb{Q}",
    "ℂ": "\\mathbb{C}",
    "°º˚": "^{\\circ}",
    "℃": "^{\\circ}\\text{C}",
    "℉": "^{\\circ}\\text{F}",
    "∠": "\\angle ",
    "△": "\\triangle ",
    "…⋯": "\\ldots ",
    "′\u2019\u2018": "'",
    "″": "''",
    "⟨〈": "(",
    "⟩〉": ")",
    "【［": "[",
    "】］": "]",
    "｛": "\\{",
    "｝": "\\}",
    "、": ",",
    "。｡": ".",
    "∶ː": ":",
    "∣│": "|",
    "￥": "¥",
    "㎡": "m^2",
    "㎥": "m^3",
    "㎠": "cm^2",
    "\u201c\u201d「」《》": "",
    "∛": "\\sqrt[3]",
    "∜": "\\sqrt[4]",
    "\xa0\u2002\u2003\u2009\u202f\u3000": " ",
    "\u200b\u200c\u200d\u2060\ufeff\xad": "",
}
_GREEK = [
    "α",
    "alpha",
    "β",
    "beta",
    "γ",
    "gamma",
    "δ",
    "delta",
    "ε",
    "epsilon",
    "ζ",
    "zeta",
    "η",
    "eta",
    "θ",
    "theta",
    "κ",
    "kappa",
    "λ",
    "lambda",
    "μ",
    "mu",
    "µ",
    "mu",
    "ν",
    "nu",
    "ξ",
    "xi",
    "π",
    "pi",
    "ρ",
    "rho",
    "σ",
    "sigma",
    "τ",
    "tau",
    "φ",
    "phi",
    "ϕ",
    "phi",
    "χ",
    "chi",
    "ψ",
    "psi",
    "ω",
    "omega",
    "Γ",
    "Gamma",
    "Δ",
    "Delta",
    "Θ",
    "Theta",
    "Λ",
    "Lambda",
    "Π",
    "Pi",
    "Σ",
    "Sigma",
    "Φ",
    "Phi",
    "Ψ",
    "Psi",
    "Ω",
    "Omega",
    "ℓ",
    "ell",
]
_TABLE: dict[int, str] = {0xFF01 + code: chr(0x21 + code) for code in range(0x5E)}  # full-width forms of ASCII
_TABLE |= {ord(sign): latex for signs, latex in _SIGNS.items() for sign in signs}
_TABLE |= {ord(letter): f"\\{name} " for letter, name in zip(_GREEK[::2], _GREEK[1::2], strict=True)}
_TABLE |= {
    ord(sign): f"\\frac{{{above}}}{{{below}}}"
    for sign, above, below in zip("½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞", "112131234151357", "233445555668888", strict=True)
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT = re.compile(r"√ ?(\d+(?:\.\d+)?|[A-Za-z])")
_COMPATIBLE = re.compile("[\U0001d400-\U0001d7ff\u2160-\u217f㎎-㏄]+")
"""Styled letters, Roman numerals and squared units, each of which Unicode itself spells with plain letters."""
_CIRCLED = re.compile("(?<![0-9])[①-⑳](?:[ ,，、]*[①-⑳])*(?![0-9])")

_TAG = re.compile(r"<(su[pb])>([^<>]{0,200})</\1>|<(b|i|em|strong|span|p)>([^<>]{0,200})</\3>|<br ?/?>")
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,8}[0-9]{0,2}|#[0-9]{2,6}|#x[0-9A-Fa-f]{2,5});")

_CHINESE = {
    **dict.fromkeys(("或者", "或"), "\\text{ or }"),
    **dict.fromkeys(("并且", "且"), "\\text{ and }"),
    "平方": "square",
    "立方": "cubic",
    **dict.fromkeys(("千米", "公里"), "km"),
    "厘米": "cm",
    "毫米": "mm",
    "分米": "dm",
    "米": "m",
    **dict.fromkeys(("千克", "公斤"), "kg"),
    "克": "g",
    "吨": "tonne",
    "毫升": "ml",
    "升": "liter",
    **dict.fromkeys(("小时", "时"), "hour"),
    "分钟": "minute",
    "秒": "second",
    "天": "day",
    **dict.fromkeys(("元", "圆"), "yuan"),
    "角": "jiao",
    "度": "^{\\circ}",
    "万": "myriad",
    "亿": "hundredmillion",
    "每": "/",
    **dict.fromkeys("个只人名位条张本件台辆棵种次根支颗粒朵片组份袋箱盒瓶", ""),
}
_LONGEST = sorted(_CHINESE, key=len, reverse=True)
_CHINESE_UNITS = re.compile(rf"(?<=[0-9A-Za-z)}}/ ])(?:{'|'.join(_LONGEST)})+(?![\u4e00-\u9fff])")
_CHINESE_UNIT = re.compile("|".join(_LONGEST))
_JOINT = re.compile(r"(?<![\u4e00-\u9fff])(?:或者?|并?且|和|与|及)|(?:或者?|并?且|和|与|及)(?![\u4e00-\u9fff])")
_JOINTS = {
    "或": "\\text{ or }",
    "且": "\\text{ and }",
    "和": "\\text{ and }",
    "与": "\\text{ and }",
    "及": "\\text{ and }",
}
_DOMAINS = {
    "正整数": "\\mathbb{Z}^+",
    "自然数": "\\mathbb{N}",
    "整数": "\\mathbb{Z}",
    "有理数": "\\mathbb{Q}",
    "实数": "\\mathbb{R}",
}
_DOMAIN = re.compile(rf"([A-Za-z])\s*(?:为|是|∈|\\in)\s*(?:任意)?({'|'.join(_DOMAINS)})")
_CHOSEN = re.compile(r"^(?:故选|选项|选择|选|答案是|答案为|答案)\s*[::]?\s*|(?<=^[A-H])(?:选项|项)$")
_WORDS = {
    "无解": "\\text{no solution}",
    "不存在": "\\text{does not exist}",
    "其中": ",",
    "无数个": "\\text{infinitely many}",
}
_HAN = re.compile(r"[\u4e00-\u9fff]")
_GROUPED = re.compile(r"\\(?:text|mathrm|textrm|mbox|rm)\s?\{([^{}]*[\u4e00-\u9fff][^{}]*)\}")


def latex_of(text: str) -> str:
    """The text with its signs, digits, fractions and Chinese units as LaTeX; what is not known stays as it is."""
    if "<" in text:
        text = _TAG.sub(_untagged, text)
    if "&" in text and ";" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found.group()), text)
    if text.isascii():
        return text
    text = _CIRCLED.sub(_numbers, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text).replace("√", "\\sqrt ")
    text = _SUPERSCRIPT.sub(lambda found: f"^{{{found.group().translate(_RAISED)}}}", text)
    text = _SUBSCRIPT.sub(lambda found: f"_{{{found.group().translate(_LOWERED)}}}", text)
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text).translate(_TABLE)
    return _from_chinese(text) if _HAN.search(text) else text


def _untagged(found: re.Match[str]) -> str:
    if found[1]:
        return f"{'^' if found[1] == 'sup' else '_'}{{{found[2]}}}"
    return found[4] or " "


def _numbers(found: re.Match[str]) -> str:
    """The numbers of statements, ①③, as a list."""
    return ",".join(str(ord(sign) - ord("①") + 1) for sign in found.group() if "①" <= sign <= "⑳")


def _from_chinese(text: str) -> str:
    text = _CHOSEN.sub("", _GROUPED.sub(r" \1 ", text).strip())
    for words, latex in _WORDS.items():
        text = text.replace(words, latex)
    text = _DOMAIN.sub(lambda found: f" {found[1]} \\in {_DOMAINS[found[2]]}", text)
    text = _JOINT.sub(lambda found: f" {_JOINTS[found.group().strip('者并')]} ", text)
    return _CHINESE_UNITS.sub(_units, text)


def _units(found: re.Match[str]) -> str:
    return "".join(f" {_CHINESE[unit]} " for unit in _CHINESE_UNIT.findall(found.group())).replace("  ", " ")
