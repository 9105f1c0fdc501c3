"""Measure every task of reasoning-gym and write docs/results/reasoning-gym.md: python -m recipes.reasoning_gym.table.

Of each task 20 problems at its default settings: whether the gold is accepted by the task's own scorer and by our
verifier, whether wrong answers are refused (the gold with its last digit changed, or its parts in another order; the
gold of another problem), and whether the gold is the answer computed again.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from unlearnbench.curation.reasoning_gym.golds import RECOMPUTED, agrees
from unlearnbench.curation.reasoning_gym.pool import Task, entries_of
from unlearnbench.curation.reasoning_gym.tasks import SCORED, UNUSABLE, judge_of
from unlearnbench.errors import DataError
from unlearnbench.io import files
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.task_scorer import entry_gold

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "reasoning-gym.md"
VERSION = "0.1.25"
PROBLEMS = 20


@dataclass(frozen=True)
class Accepted:
    """How many of the problems' golds, slightly changed golds and other problems' golds a judge accepts."""

    golds: int
    near: int
    others: int

    def __str__(self) -> str:
        return f"{self.golds} / {self.near} / {self.others}"


@dataclass(frozen=True)
class Row:
    """What was found of a task."""

    task: str
    own: Accepted | None
    ours: Accepted | None
    computed: tuple[int, int]
    """Golds computed again, and those among them that agree."""
    without_gold: int
    example: str

    @property
    def verdict(self) -> str:
        """Usable or not, and why."""
        if self.task in UNUSABLE:
            return f"no: {UNUSABLE[self.task]}"
        judge = self.own if judge_of(self.task) == "reasoning_gym" else self.ours
        if judge is None or judge.golds == 0:
            return "no: no gold is accepted"
        note = f"; {PROBLEMS - judge.golds} of {PROBLEMS} golds left out" if judge.golds < PROBLEMS else ""
        wrong = self.computed[0] - self.computed[1]
        note += f"; {wrong} wrong golds left out" if wrong else ""
        return f"yes, judged by {'its scorer' if self.task in SCORED else 'our verifier'}{note}"


def changed(gold: str) -> str:
    """A wrong answer that looks like the gold: its last digit one more, its parts the other way round, or a letter."""
    if digits := list(re.finditer(r"[0-9]", gold)):
        last = digits[-1]
        return f"{gold[: last.start()]}{(int(last.group()) + 1) % 10}{gold[last.end() :]}"
    for mark in (", ", " "):
        if mark in gold:
            return mark.join(gold.split(mark)[::-1])
    return {"True": "False", "False": "True", "Yes": "No", "No": "Yes"}.get(gold, gold + "e")


def _accepted(verifier: Verifier, golds: Sequence[str], answers: Sequence[str]) -> Accepted:
    def count(stated: Sequence[str | None]) -> int:
        pairs = [(gold, f"\\boxed{{{text}}}") for gold, text in zip(golds, stated, strict=True) if text is not None]
        return sum(bool(verdict.correct) for verdict in verifier.verify_many(pairs))

    near = [text if (text := changed(answer)) != answer else None for answer in answers]
    others = [next((other for other in answers if other != answer), None) for answer in answers]
    return Accepted(count(answers), count(near), count(others))


def measured(task: str, verifier: Verifier) -> Row:
    """Generate problems of a task and ask both judges."""
    entries = list(entries_of(Task(task, {}, task), 0, "table", PROBLEMS))
    whole = [entry for entry in entries if entry["answer"] is not None]
    answers = [str(entry["answer"]) for entry in whole]
    found = [agrees(task, e["question"], str(e["answer"]), e["metadata"]) for e in whole]
    own = None
    try:
        golds = [entry_gold(task, {}, answer, entry["metadata"]) for answer, entry in zip(answers, whole, strict=True)]
        own = _accepted(verifier, golds, answers)
    except TypeError:  # JSON cannot hold what the scorer needs
        pass
    return Row(
        task,
        own,
        _accepted(verifier, answers, answers),
        (len(found) - found.count(None), found.count(True)),
        len(entries) - len(whole),
        answers[0] if answers else "",
    )


def page(rows: Sequence[Row]) -> str:
    """The document."""
    usable = [row for row in rows if row.verdict.startswith("yes")]
    table = [
        "| task | its scorer: gold / near / other | our verifier: the same | computed again | usable |",
        "|---|---:|---:|---:|---|",
    ]
    for row in rows:
        computed = f"{row.computed[1]} of {row.computed[0]}" if row.computed[0] else ""
        own, ours = ("" if of is None or not row.example else str(of) for of in (row.own, row.ours))
        table.append(f"| `{row.task}` | {own} | {ours} | {computed} | {row.verdict} |")
    return (
        HEAD.format(version=VERSION, tasks=len(rows), usable=len(usable), n=PROBLEMS, recomputed=len(RECOMPUTED))
        + "\n".join(table)
        + "\n"
    )


HEAD = """\
# Problems from reasoning-gym

[reasoning-gym](https://github.com/open-thought/reasoning-gym) {version} (Apache-2.0) generates problems of {tasks}
tasks from seeds. {usable} of them make items here: any policy is labelled on any of these in two commands.

<!-- not run: needs the extra reasoning-gym and a policy -->
```bash
pip install "unlearnbench[reasoning-gym]"
unlearnbench new-split sums --policy HuggingFaceTB/SmolLM2-135M-Instruct --format chat --items 120 --examples 2 \\
    --pool "reasoning_gym:chain_sum:max_terms=3:max_digits=2,lcm:max_value=12,countdown:min_numbers=2:max_numbers=3"
unlearnbench curate --config sums/split.yaml --out sums-labelled --engine dtype=bfloat16
```

The first command writes `sums/split.yaml`, 120 items (40 per task), and up to four probes per item: problems of the
same task with another seed and the same difficulty. `--examples 2` puts two worked examples before each problem.
Settings of a task follow its name after colons; several tasks are separated by commas; the same task may occur twice
with other settings. Look at the recipe in `split.yaml` (steps, learning rate, `max_tokens`) before the second command,
and at `unlearnbench plan --split sums` for what it costs.

**Golds are not taken on trust.** A gold is computed again where that can be done ({recomputed} tasks); it must be
accepted, and the answer to another problem refused, by the judge, else the problem is left out, and
`new-split` says how many and why. Where one answer is right our verifier judges, by the same rules as everywhere.
Where many are (`countdown`), or where the form is one that our verifier does not read (hexadecimal numbers), the
task's own `score_answer` judges: `split.yaml` then says `verifier: reasoning_gym`, the item's `answer` holds the entry
that the scorer needs as JSON, and the scorer runs in the verifier's worker process, with its time and memory limits,
never in yours. Nine scorers evaluate the answer as Python; they are given only what numbers, lists and formulas are
made of.

## All tasks

{n} problems of each at its default settings. *near*: the gold with its last digit changed or its parts in another
order; *other*: the gold of another problem. A judge should accept {n} / 0 / 0; a near answer may be right where many
are. Counts of golds below {n} in the column of the own scorer are mostly entries that do not survive JSON, which
matters only where that scorer would judge. Made by `python -m recipes.reasoning_gym.table`.

"""


def main() -> None:
    from reasoning_gym.factory import DATASETS

    warnings.simplefilter("ignore")
    rows = []
    with Verifier() as verifier:
        for task in track(sorted(DATASETS), description="tasks"):
            try:
                rows.append(measured(task, verifier))
            except DataError:  # a mixture of other tasks has no default settings
                rows.append(Row(task, None, None, (0, 0), 0, ""))
    files.write_text(PAGE, page(rows))


if __name__ == "__main__":
    main()
