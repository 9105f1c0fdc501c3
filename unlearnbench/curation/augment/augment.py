"""Generated problems for a split's items: similar ones, or the steps towards them (arXiv 2605.16787).

    for each item: one model writes problems with answers
    → a second model solves each by itself; only those where both agree are kept
    → a problem that repeats an item or a twin is marked as leaked
    → <kind>.parquet

Every item is finished and stored by itself, so an interrupted run can be resumed. No twin, label or
item but the one at hand is ever sent.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from unlearnbench.curation.augment.openai_client import Endpoint, Reply
from unlearnbench.curation.augment.prompts import Kind, Problem, fingerprint, problems_in, shown, to_solve, to_write
from unlearnbench.curation.text_overlap import Repeats
from unlearnbench.errors import DataError, RunError, SplitError
from unlearnbench.io import files, tables
from unlearnbench.records import Item, Record, RelatedProblem
from unlearnbench.rng import stream
from unlearnbench.splits import Split
from unlearnbench.splits.source_dataset import stripped
from unlearnbench.verifier import Verifier


class Settings(Record):
    """What decides which problems are asked for; a folder is resumed under the same only."""

    schema_version: Literal[1] = 1
    kind: Kind
    split: str
    split_hash: str
    model: str
    second_model: str
    groups: Sequence[str]
    count: int
    temperature: float
    max_tokens: int
    prompt: str = ""
    """The fingerprint of what is asked and read, `asking.py`."""


class Candidate(Record):
    """A generated problem and what became of it. One line of an item's file."""

    question: str
    answer: str
    solution: str
    second: str
    """What the second model wrote."""
    compared: bool
    """Whether that states an answer."""
    agrees: bool
    leaked: bool


class Finished(Record):
    """The last line of an item's file: what the first model wrote, and what the item took."""

    written: str
    requests: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Bound:
    """What a run takes at most, requests that are tried again not counted. Tokens of prompts by their bytes."""

    items: int
    requests: int
    prompt_tokens: int
    completion_tokens: int


class Summary(Record):
    """augment.json: the settings, and what came of them."""

    settings: Settings
    items: int
    items_with_problems: int
    items_unread: int
    """Items for which the first model wrote no problem in the requested form."""
    generated: int
    compared: int
    """Generated problems to which the second model stated an answer."""
    agreed: int
    leaked: int
    requests: int
    prompt_tokens: int
    completion_tokens: int


def augment(
    split: Split,
    kind: Kind,
    endpoint: Endpoint,
    model: str,
    second_model: str,
    out: Path,
    *,
    groups: Sequence[str] = ("unlearnable",),
    count: int = 5,
    temperature: float = 0.7,
    max_tokens: int = 4096,
    limit: int | None = None,
    workers: int = 8,
    announce: Callable[[Bound], None] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Summary:
    """Ask for problems of one kind for the items of some groups, filter them, and write `<kind>.parquet` to `out`.

    Items that a former call finished are not asked for again. Raises RunError where the endpoint fails or the folder
    holds another run, SplitError where there are no such items.
    """
    items = [item for group in groups for item in _items(split, group)][:limit]
    if not items:
        raise SplitError(f"split {split.name} has no items in {', '.join(groups)}; choose another --group")
    settings = Settings(
        kind=kind,
        split=split.name,
        split_hash=split.hash,
        model=model,
        second_model=second_model,
        groups=tuple(groups),
        count=count,
        temperature=temperature,
        max_tokens=max_tokens,
        prompt=fingerprint(kind),
    )
    _claim(out, settings)
    waiting = [item for item in items if not _place(out, item).is_file()]
    if announce:
        announce(bound(waiting, settings))
    prompts = [item.prompt for item in split.items] + [twin.prompt for twin in split.twins]
    texts = Repeats([stripped(prompt) for prompt in prompts])
    if waiting:
        with Verifier(workers=2) as verifier:
            desk = _Desk(settings, endpoint, texts, verifier, out)
            _side_by_side(desk.finish, waiting, workers, progress)
    return _gather(items, settings, out)


def bound(items: Sequence[Item], settings: Settings) -> Bound:
    """What asking for these items takes at most."""
    asked = sum(_bytes(_turns(item, settings)) for item in items)
    solved = len(items) * settings.count * _bytes(to_solve(""))
    generated = len(items) * settings.max_tokens  # of which the second model's prompts are made
    return Bound(
        items=len(items),
        requests=len(items) * (1 + settings.count),
        prompt_tokens=asked + solved + generated,
        completion_tokens=generated * (1 + settings.count),
    )


class _Desk:
    """What finishing an item needs."""

    def __init__(self, settings: Settings, endpoint: Endpoint, known: Repeats, verifier: Verifier, out: Path) -> None:
        self.settings, self.endpoint, self.known, self.verifier, self.out = settings, endpoint, known, verifier, out

    def finish(self, item: Item) -> None:
        """Generate, solve, compare; then write the item's file, at once."""
        settings = self.settings
        first = self._ask(settings.model, _turns(item, settings), item.item_id, "write")
        replies = [first]
        candidates: list[Candidate] = []
        found = shown(settings.kind)
        for place, problem in enumerate(problems_in(first.text, ended=first.ended)[: settings.count]):
            if Repeats(found).holds(problem["question"]):
                continue  # the same twice, or what the model was shown
            found.append(problem["question"])
            second = self._ask(settings.second_model, to_solve(problem["question"]), item.item_id, "solve", place)
            replies.append(second)
            verdict = self.verifier.verify(problem["answer"], second.text.rpartition("</think>")[2])
            candidates.append(
                Candidate(
                    **problem,
                    second=second.text,
                    compared=verdict.answer is not None,
                    agrees=verdict.correct is True,
                    leaked=self.known.holds(problem["question"]),
                )
            )
        end = Finished(
            written=first.text,
            requests=len(replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
        )
        lines = [record.model_dump_json() for record in (*candidates, end)]
        files.write_text(_place(self.out, item), "\n".join(lines) + "\n")

    def _ask(self, model: str, turns: Sequence[str], *names: object) -> Reply:
        settings = self.settings
        seed = stream("augment", settings.kind, *names) >> 33  # servers take 31 bits
        return self.endpoint.chat(
            model, turns, temperature=settings.temperature, max_tokens=settings.max_tokens, seed=seed
        )


def _side_by_side(
    act: Callable[[Item], None],
    items: Sequence[Item],
    workers: int,
    progress: Callable[[float], None] | None,
) -> None:
    """Process all items in threads. The first failure stops the others after their current item, and is raised."""
    stopping = threading.Event()
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    for item in items:
        todo.put(item)
    ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def work() -> None:
        while not stopping.is_set():
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            try:
                act(item)
            except Exception as problem:
                ended.put(problem)
            else:
                ended.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(items)))]
    for thread in threads:
        thread.start()
    try:
        for done in range(len(items)):
            problem = ended.get()
            if problem is not None:
                raise problem
            if progress:
                progress((done + 1) / len(items))
    except Exception:
        stopping.set()
        for thread in threads:  # requests under way are paid for: their results are stored first
            thread.join()
        raise
    finally:
        stopping.set()


def _gather(items: Sequence[Item], settings: Settings, out: Path) -> Summary:
    """Write the table and the summary from the items' files."""
    rows: list[RelatedProblem] = []
    spent = ("requests", "prompt_tokens", "completion_tokens")
    totals = dict.fromkeys(("generated", "compared", "items_unread", *spent), 0)
    for item in items:
        candidates, end = _finished(_place(out, item))
        totals["generated"] += len(candidates)
        totals["compared"] += sum(candidate.compared for candidate in candidates)
        totals["items_unread"] += not candidates
        for name in spent:
            totals[name] += getattr(end, name)
        agreed = [candidate for candidate in candidates if candidate.agrees]
        rows += [
            RelatedProblem(
                problem_id=f"{settings.kind}-{item.item_id}-{place}",
                item_id=item.item_id,
                prompt=candidate.question,
                answer=candidate.answer,
                solution=candidate.solution,
                leaked=candidate.leaked,
            )
            for place, candidate in enumerate(agreed)
        ]
    tables.write_records(out / f"{settings.kind}.parquet", rows, RelatedProblem)
    summary = Summary(
        settings=settings,
        items=len(items),
        items_with_problems=len({row.item_id for row in rows}),
        agreed=len(rows),
        leaked=sum(row.leaked for row in rows),
        **totals,
    )
    files.write_json(out / "augment.json", summary)
    return summary


def _finished(path: Path) -> tuple[list[Candidate], Finished]:
    """An item's file. Raises DataError where it was altered."""
    rows: list[dict[str, Any]] = list(tables.read_jsonl(path))
    try:
        return [Candidate.model_validate(row) for row in rows[:-1]], Finished.model_validate(rows[-1])
    except (ValueError, IndexError) as error:
        raise DataError(f"{path} is not a finished item; remove it and run the same command again") from error


def _claim(out: Path, settings: Settings) -> None:
    """Write settings.json, or check that the one there is the same. Raises RunError naming what differs."""
    path = out / "settings.json"
    if not path.is_file():
        files.write_json(path, settings)
        return
    found, wanted = (one.model_dump(mode="json") for one in (tables.read_json_record(path, Settings), settings))
    for name, here in wanted.items():
        if found[name] != here:
            raise RunError(
                f"{out} holds problems made with another {name} ({found[name]!r} there, {here!r} here); name another "
                "folder with --out, or remove it"
            )


def _place(out: Path, item: Item) -> Path:
    return out / "items" / f"{quote(item.item_id, safe='')}.jsonl"


def _items(split: Split, group: str) -> list[Item]:
    ids = set(split.ids(group))
    return [item for item in split.items if item.item_id in ids]


def _turns(item: Item, settings: Settings) -> list[str]:
    given = Problem(stripped(item.prompt), item.solution or "", item.answer)
    return to_write(settings.kind, given, settings.count)


def _bytes(turns: Sequence[str]) -> int:
    return sum(len(turn.encode()) for turn in turns)
