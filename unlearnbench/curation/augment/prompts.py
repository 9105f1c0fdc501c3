"""What `augment` asks two models, and how it reads what the first one writes.

A request is a conversation: the same request twice, for problems of our own and with the reply that is wanted, then
the request itself. Small models follow a form that they were shown, and hardly one that they were told.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from unlearnbench.verifier.extraction import stated_answer

Kind = Literal["similar", "sub_problems"]


class Problem(NamedTuple):
    """A problem with its worked solution and its answer."""

    question: str
    solution: str
    answer: str


_FORM = """Write every problem in exactly this form, and nothing else:

<problem>
the full statement of the problem, which can be understood by itself
</problem>
<solution>
a worked solution, step by step
</solution>
<answer>
the final answer alone, short, with no words around it
</answer>"""

_GIVEN = """Here is a mathematics problem with its answer.

<given>
{problem}
</given>
<given_answer>
{answer}
</given_answer>
{solution}
"""
_TASKS: Mapping[Kind, str] = {
    "similar": """Write {count} new problems that are similar to it: they need the same ideas and the same steps, with \
other numbers, other names or another setting. Each must differ from the given problem and from the others, must not \
be harder than it, and must have one definite answer.""",
    "sub_problems": """Break it into steps and turn the steps into at most {count} smaller problems, in the order in \
which they are needed. Each must be easier than the given problem, must state everything that it needs, must not be \
the given problem again, and must have one definite answer.""",
}
SOLUTION = """<given_solution>
{solution}
</given_solution>
"""
SOLVE = """Solve this problem. Reason step by step, and put the final answer alone within \\boxed{{}}.

{problem}"""

_EQUATION = Problem(
    "If $3x + 5 = 20$, what is $2x - 1$?",
    "From $3x = 20 - 5 = 15$ follows $x = 5$. So $2x - 1 = 10 - 1 = 9$.",
    "9",
)
_APPLES = Problem("Tom has 34 apples and eats 9 of them. How many are left?", "34 - 9 = 25.", "25")
_ROLLS = Problem(
    "A baker fills 6 trays with 14 rolls each and sells 59 of the rolls. How many rolls are left?",
    "The trays hold 6 * 14 = 84 rolls. After the sale, 84 - 59 = 25 rolls are left.",
    "25",
)
_SHOWN: Mapping[Kind, Sequence[tuple[Problem, Sequence[Problem]]]] = {
    "similar": (
        (
            _EQUATION,
            (
                Problem(
                    "If $4y - 3 = 21$, what is $5y + 2$?",
                    "From $4y = 21 + 3 = 24$ follows $y = 6$. So $5y + 2 = 30 + 2 = 32$.",
                    "32",
                ),
                Problem(
                    "If $7n + 6 = 34$, what is $\\frac{n}{3}$?",
                    "From $7n = 34 - 6 = 28$ follows $n = 4$. So $\\frac{n}{3} = \\frac{4}{3}$.",
                    "\\frac{4}{3}",
                ),
            ),
        ),
        (
            _APPLES,
            (
                Problem("Ida has 52 stamps and gives 17 of them away. How many are left?", "52 - 17 = 35.", "35"),
                Problem(
                    "A bus carries 41 people and 16 of them get off. How many are still on it?", "41 - 16 = 25.", "25"
                ),
            ),
        ),
    ),
    "sub_problems": (
        (
            _EQUATION,
            (
                Problem("If $3x + 5 = 20$, what is $x$?", "From $3x = 20 - 5 = 15$ follows $x = 15 / 3 = 5$.", "5"),
                Problem("What is $2x - 1$ if $x = 5$?", "$2x = 10$, so $2x - 1 = 10 - 1 = 9$.", "9"),
            ),
        ),
        (
            _ROLLS,
            (
                Problem("A baker fills 6 trays with 14 rolls each. How many rolls are there?", "6 * 14 = 84.", "84"),
                Problem("A baker has 84 rolls and sells 59 of them. How many are left?", "84 - 59 = 25.", "25"),
            ),
        ),
    ),
}
"""For each kind, two given problems and what is to be written for them: made up here, and no item of any split."""

_TAG = r"</?(?:problem|solution|answer)>"
_TEXT = rf"(?:(?!{_TAG}).)*"
_ONE = re.compile(
    rf"<problem>(?P<question>{_TEXT})(?:</problem>\s*)?"
    rf"<solution>(?P<solution>{_TEXT})(?:</solution>\s*|(?=<answer>|<problem>|\Z))"
    rf"(?:<answer>(?P<answer>{_TEXT})(?:</answer>|(?=<problem>|\Z))|(?=<problem>|\Z))(?!\s*</?(?:solution|answer)>)",
    re.DOTALL,
)
_BOX_AT_END = re.compile(r"\\boxed\s*\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}[\s.$]*\Z")
LONGEST = {"question": 8_000, "answer": 500}
"""Characters; a longer one is not a problem of this kind."""


def to_write(kind: Kind, given: Problem, count: int) -> list[str]:
    """The messages that ask for `count` problems: user and model alternate, and the last one is the user's."""
    turns = []
    for shown, written in _SHOWN[kind]:
        turns += [_request(kind, shown, len(written)), _written(written)]
    return [*turns, _request(kind, given, count)]


def to_solve(question: str) -> list[str]:
    """The turns that ask for a solution."""
    turns = []
    for shown in (_EQUATION, _ROLLS):
        turns += [SOLVE.format(problem=shown.question), f"{shown.solution} \\boxed{{{shown.answer}}}"]
    return [*turns, SOLVE.format(problem=question)]


def shown(kind: Kind) -> list[str]:
    """The questions that a model is shown; one that it copies is none that it wrote."""
    return [problem.question for given, written in _SHOWN[kind] for problem in (given, *written)]


def fingerprint(kind: Kind) -> str:
    """Names what is asked for and in which form it is read. Another text here, another name."""
    given = Problem("{question}", "{solution}", "{answer}")
    texts = (*to_write(kind, given, 0), *to_solve("{question}"), _ONE.pattern)
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:12]


def problems_in(text: str, *, ended: bool = False) -> list[dict[str, str]]:
    """The problems that a model wrote, by question, solution and answer; what has another form is left out.

    A part may end where the next one starts, and the last one with the text if the model `ended` it by itself. An
    answer that is missing is the box that the solution ends in, if there is one box only.
    """
    found = []
    text = text.rpartition("</think>")[2]
    for match in _ONE.finditer(text):
        if match.end() == len(text) and not match[0].endswith("</answer>") and not ended:
            continue  # cut short
        parts = {name: (value or "").strip() for name, value in match.groupdict().items()}
        parts["answer"] = _answer(parts["answer"]) if match["answer"] is not None else _last_words(parts["solution"])
        if parts["question"] and parts["answer"] and all(len(parts[name]) <= most for name, most in LONGEST.items()):
            found.append(parts)
    return found


def _answer(text: str) -> str:
    """The content of the only box, if there is one; else the text."""
    return (text.count("\\boxed") == 1 and stated_answer(text).answer) or text


def _last_words(solution: str) -> str:
    """The content of the only box, if the solution ends in it."""
    box = _BOX_AT_END.search(solution)
    return _answer(box[0]) if box and solution.count("\\boxed") == 1 else ""


def _request(kind: Kind, given: Problem, count: int) -> str:
    solution = SOLUTION.format(solution=given.solution) if given.solution else ""
    text = _GIVEN.format(problem=given.question, answer=given.answer, solution=solution)
    return f"{text}{_TASKS[kind].format(count=count)}\n\n{_FORM}"


def _written(problems: Sequence[Problem]) -> str:
    """Problems in the form that is asked for."""
    return "\n\n".join(
        f"<problem>\n{question}\n</problem>\n<solution>\n{solution}\n</solution>\n<answer>\n{answer}\n</answer>"
        for question, solution, answer in problems
    )
