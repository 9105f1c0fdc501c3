"""Items and probes from tasks of reasoning-gym.

    reasoning_gym:chain_sum:min_terms=2:max_terms=2,gcd:max_value=40

names tasks and their settings. Every gold is checked before it becomes an item: computed again where we can, accepted
and a wrong answer refused by the judge. Probes are problems of the same task with another seed and the same
difficulty (settings, and what an entry states of its size).

The same seed gives the same problems; tasks whose solutions sympy writes may write them in another order of terms.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import yaml

from unlearnbench.curation.reasoning_gym.golds import agrees
from unlearnbench.curation.reasoning_gym.tasks import UNUSABLE, Judge, judge_of
from unlearnbench.curation.reasoning_gym.worked import asked, solution
from unlearnbench.errors import DataError, RunError
from unlearnbench.records import Item, Twin
from unlearnbench.rng import stream
from unlearnbench.verifier import Verifier
from unlearnbench.verifier.task_scorer import INSTALL, entry_gold

PREFIX = "reasoning_gym:"
PROBES = 4
TRIED = 40
"""Problems that are generated for each that is wanted, before a task is given up."""
_SIZE = re.compile(r"num_\w+|\w+_(?:length|places|len)|n_sides|n")

Render = Callable[[str, Sequence[tuple[str, str]]], str]
"""The prompt of a question, given worked examples (question, solution)."""


@dataclass(frozen=True)
class Task:
    """One task with its settings; `family` distinguishes it from the others of the pool."""

    name: str
    settings: Mapping[str, Any]
    family: str
    fits: Callable[[Mapping[str, Any]], bool] = lambda raw: True
    """Whether an entry of the package (question, answer, metadata) is wanted."""


@dataclass(frozen=True)
class Entry:
    """One problem of a task."""

    question: str
    answer: str
    gold: str
    solution: str
    size: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class TaskPool:
    """Items and their probes, who judges, and why problems were left out (`reason`: how many)."""

    items: tuple[Item, ...]
    twins: tuple[Twin, ...]
    judge: Judge
    left_out: Mapping[str, int]


def tasks_of(text: str) -> tuple[Task, ...]:
    """The tasks that a pool's name lists. Raises DataError where it is malformed or a task makes no items."""
    if not text.startswith(PREFIX):
        raise DataError(f"--pool {text!r} is none that is known; give {PREFIX}TASK[:key=value],...")
    require()
    from reasoning_gym.factory import DATASETS

    tasks: list[Task] = []
    for part in _split(text.removeprefix(PREFIX), ","):
        name, *settings = _split(part, ":")
        if name not in DATASETS:
            raise DataError(f"reasoning-gym has no task {name!r}; docs/results/reasoning-gym.md lists them")
        if name in UNUSABLE:
            raise DataError(f"the task {name!r} makes no items: {UNUSABLE[name]}")
        count = sum(task.name == name for task in tasks)
        tasks.append(Task(name, dict(map(_setting, settings)), f"{name}-{count + 1}" if count else name))
    return tuple(tasks)


def require() -> None:
    """Raise RunError where reasoning-gym is not installed."""
    if find_spec("reasoning_gym") is None:
        raise RunError(f"reasoning-gym is not installed here: {INSTALL}")


def task_pool(
    tasks: Sequence[Task], items: int, *, seed: int = 0, examples: int = 0, render: Render | None = None
) -> TaskPool:
    """`items` problems, as many of each task, with up to four probes each and `examples` worked ones in the prompt.

    Raises DataError where a task does not give as many.
    """
    show = render or prompt
    made: list[Item] = []
    twins: list[Twin] = []
    left_out: Counter[str] = Counter()
    judges = {judge_of(task.name) for task in tasks}
    with Verifier(workers=1) as verifier:
        for place, task in enumerate(tasks):
            wanted = items // len(tasks) + (place < items % len(tasks))
            shown: list[tuple[str, str]] = []
            used: set[str] = set()
            source = checked(task, seed, "examples", verifier, Counter(), used)
            while len(shown) < examples:
                example = _next(source, task, "worked examples")
                if all(example.solution != other for _, other in shown):
                    shown.append((example.question, example.solution))
            source = checked(task, seed, "items", verifier, left_out, used)
            entries = [_next(source, task, "items") for _ in range(wanted)]
            probes = _probes(entries, checked(task, seed, "probes", verifier, left_out, used))
            for number, (entry, own) in enumerate(zip(entries, probes, strict=True)):
                item_id = f"{task.family}-{number:04d}"
                made.append(
                    Item(
                        item_id=item_id,
                        prompt=show(entry.question, shown),
                        answer=entry.gold,
                        solution=entry.solution,
                        family=task.family,
                    )
                )
                twins += [
                    Twin(
                        twin_id=f"{item_id}-probe-{k}",
                        item_id=item_id,
                        kind="changed_numbers",
                        prompt=show(probe.question, shown),
                        answer=probe.gold,
                    )
                    for k, probe in enumerate(own)
                ]
    return TaskPool(tuple(made), tuple(twins), "reasoning_gym" if "reasoning_gym" in judges else "math", left_out)


def prompt(question: str, examples: Sequence[tuple[str, str]]) -> str:
    """The default prompt."""
    rule = "Solve the problem and put the final answer in \\boxed{}."
    if not examples:
        return f"{question}\n{rule}"
    shown = "".join(f"Problem: {asked}\nSolution: {solved}\n\n" for asked, solved in examples)
    return f"{rule}\n\n{shown}Problem: {question}\nSolution:"


def _split(text: str, mark: str) -> list[str]:
    """Parts between marks that stand outside brackets and quotes."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == mark and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise DataError(f"{text!r} is not a setting of a task; write key=value")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as problem:
        raise DataError(f"{text!r} is not a setting of a task: its value is not readable") from problem


def entries_of(task: Task, seed: int, purpose: str, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` entries of a task's stream. Raises DataError for settings that the task refuses."""
    import reasoning_gym

    start = stream("reasoning-gym", seed, purpose, task.family) % 2**31
    try:
        dataset = reasoning_gym.create_dataset(task.name, seed=start, size=count, **dict(task.settings))
    except (AssertionError, TypeError, ValueError, KeyError) as problem:
        detail = str(problem).strip().split("\n")[0] or type(problem).__name__
        raise DataError(
            f"the task {task.name!r} refuses its settings ({detail.rstrip('.')}); correct them"
        ) from problem
    for index in range(count):
        yield dataset[index]


def checked(
    task: Task,
    seed: int,
    purpose: str,
    verifier: Verifier,
    left_out: Counter[str],
    used: set[str],
    generated: int = 100_000,
) -> Iterator[Entry]:
    """Problems of a task's stream whose golds hold, from so many generated ones.

    `used` has the questions that occur already, and gains those that are given; `left_out` counts the others' reasons.
    """
    before: str | None = None
    for raw in entries_of(task, seed, purpose, generated):
        reason, entry = _entry(task, raw)
        if entry is not None and entry.question in used:
            reason = "asked before"
        if entry is None or reason:
            left_out[reason] += 1
            continue
        wrong = before if before is not None and before != entry.answer else None
        asked_of = [(entry.gold, f"\\boxed{{{entry.answer}}}"), (entry.gold, entry.solution)]
        asked_of += [(entry.gold, f"\\boxed{{{wrong}}}")] if wrong else []
        verdicts = [verdict.correct for verdict in verifier.verify_many(asked_of)]
        before = entry.answer
        if verdicts[:2] != [True, True]:
            left_out["gold refused by its judge"] += 1
        elif judge_of(task.name) == "math" and verdicts[2:] == [True]:
            left_out["a wrong answer accepted"] += 1
        else:
            used.add(entry.question)
            yield entry


def _entry(task: Task, raw: Mapping[str, Any]) -> tuple[str, Entry | None]:
    """Why a raw entry is left out ("" where it is not), and what it asks."""
    if raw["answer"] is None:
        return "no gold", None
    if not task.fits(raw):
        return "not wanted", None
    answer, metadata = str(raw["answer"]), raw["metadata"]
    if agrees(task.name, raw["question"], answer, metadata) is False:
        return "gold wrong when computed again", None
    try:
        gold = answer if judge_of(task.name) == "math" else entry_gold(task.name, task.settings, answer, metadata)
    except TypeError:
        return "entry cannot be written down", None
    size = tuple(
        sorted((key, value) for key, value in metadata.items() if _SIZE.fullmatch(key) and isinstance(value, int))
    )
    text = asked(task.name, raw["question"])
    return "", Entry(text, answer, gold, solution(task.name, answer, metadata), size)


def _next(source: Iterator[Entry], task: Task, what: str) -> Entry:
    for entry in source:
        return entry
    raise DataError(f"the task {task.name!r} gives too few different problems for the {what}; widen its settings")


def _probes(entries: Sequence[Entry], source: Iterator[Entry]) -> list[list[Entry]]:
    """Up to PROBES problems of the same size for each."""
    found: list[list[Entry]] = [[] for _ in entries]
    open_of: dict[tuple[tuple[str, Any], ...], list[int]] = {}
    for place, entry in enumerate(entries):
        open_of.setdefault(entry.size, []).append(place)
    for _ in range(TRIED * max(1, len(entries))):
        if not open_of:
            break
        probe = next(source, None)
        if probe is None:
            break
        places = open_of.get(probe.size)
        if not places:
            continue
        place = min(places, key=lambda place: len(found[place]))
        found[place].append(probe)
        if len(found[place]) == PROBES:
            places.remove(place)
            if not places:
                del open_of[probe.size]
    return found
