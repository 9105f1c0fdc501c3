"""Verdicts: whether the answer that a completion states is the gold answer, with guarded worker processes.

Nearly every verdict is decided in this process, in microseconds. The rest goes to workers: fresh Python processes with
a memory limit, asked over a socket in JSON, killed at the time limit and restarted. Nothing uses signals or
multiprocessing's own processes, so it works from any thread and from daemonic processes. Text that cannot be graded is
wrong; a verdict is None only when the verifier itself fails twice (PROTOCOL 3.12).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Self, get_args

from unlearnbench.records import Reason, Rule, Verdict
from unlearnbench.verifier.cache import VerdictCache
from unlearnbench.verifier.extraction import (
    ANSWER_LIMIT,
    Stated,
    lists_values,
    offers_alternatives,
    stated_answer,
    stated_values,
    without_formatting,
)
from unlearnbench.verifier.fast_path import quick_equal, too_large
from unlearnbench.verifier.task_scorer import ENTRY_LIMIT, is_entry, require_scorers
from unlearnbench.verifier.worker_process import Question, Reply, TimeLimitError, WorkerDiedError, WorkerProcess

UNGRADABLE: frozenset[Reason] = frozenset({"timeout", "too_large", "unparsable"})
"""Reasons of verdicts on text that could not be graded, and so is wrong."""
_MOST_SYMBOLIC = 100_000
"""Verdicts that are remembered as sympy's."""


def verify(gold: str, completion: str, rule: Rule = "strict") -> Verdict:
    """The verdict on one completion, from workers that all callers in this process share."""
    return verify_many([(gold, completion)], rule)[0]


def verify_many(pairs: Sequence[tuple[str, str]], rule: Rule = "strict") -> list[Verdict]:
    """The verdicts on pairs of gold and completion, in the same order, from the same workers."""
    verifier = _shared.get(rule)
    if verifier is None:
        with _shared_lock:
            verifier = _shared.setdefault(rule, Verifier(rule, workers=min(4, os.cpu_count() or 1)))
    return verifier.verify_many(pairs)


class Verifier:
    """Verdicts under one rule, with a cache by gold and stated answer. Safe to share between threads.

    At most `workers` processes are started, each when it is first needed. Leaving the `with` block, `close`, garbage
    collection or the end of this process, however sudden, ends them. `calls` counts verdicts, `ungradable` those on
    text that could not be graded. `cache` names a file of verdicts that outlives this process and may be shared with
    others (cache.py); DataError and RunError where it cannot be used as one.
    """

    def __init__(
        self, rule: Rule = "strict", *, workers: int = 1, time_limit: float = 2.0, cache: str | Path | None = None
    ) -> None:
        if rule not in get_args(Rule) or workers < 1 or not time_limit > 0:
            raise ValueError(
                f"a verifier needs a rule of {get_args(Rule)}, at least one worker and a time limit above 0"
            )
        self.rule: Rule = rule
        self.workers = workers
        self.time_limit = time_limit
        self.ungradable = 0
        self._nothing = {reason: Verdict(False, None, reason, rule) for reason in ("no_answer", "too_large")}
        self._cache = VerdictCache(rule, cache)
        self._symbolic: dict[int, Verdict] = {}
        self._live: set[WorkerProcess] = set()
        self._new_slots()
        _verifiers.add(self)
        weakref.finalize(self, _kill_all, self._live)

    def verify(self, gold: str, completion: str) -> Verdict:
        """The verdict on one completion."""
        return self.verify_many([(gold, completion)])[0]

    def verify_many(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """The verdicts on pairs of gold and completion, in the same order; equal pairs are judged once."""
        verdicts = self._verdicts((gold, stated_answer(completion, self.rule)) for gold, completion in pairs)
        for place, joint in self._in_several_boxes(pairs, verdicts):
            if (whole := self._verdicts([joint])[0]).correct:
                verdicts[place] = whole
        self._count(verdicts)
        return verdicts

    def is_symbolic(self, verdict: Verdict) -> bool:
        """Whether sympy had to judge this verdict (the object itself), which is what takes most time."""
        return id(verdict) in self._symbolic

    def close(self) -> None:
        """End the workers and close the cache's file. A later call starts new workers and opens the file again."""
        _kill_all(self._live)
        self._cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _in_several_boxes(
        self, pairs: Sequence[tuple[str, str]], verdicts: Sequence[Verdict]
    ) -> Iterator[tuple[int, tuple[str, Stated]]]:
        """Pairs whose last box is wrong, but whose boxes together may list the values of a gold that is a set."""
        for place, ((gold, completion), verdict) in enumerate(zip(pairs, verdicts, strict=True)):
            if verdict.correct is not False or verdict.answer is None or is_entry(gold):
                continue
            if lists_values(_clean_gold(gold)):
                boxes = stated_values(completion)
                if len(boxes) > 1:
                    yield place, (gold, Stated(", ".join(boxes)))

    def _verdicts(self, stated: Iterable[tuple[str, Stated]]) -> list[Verdict]:
        """Verdicts in order. Of most pairs nothing else is kept, which leaves the garbage collector little to search:
        kept until the end, they would cost a fifth of the time."""
        verdicts: list[Verdict] = []
        hard: dict[tuple[str, Stated], list[int]] = {}
        for place, (gold, answer) in enumerate(stated):
            verdict = self._known(gold, answer)
            if verdict is None:
                hard.setdefault((gold, answer), []).append(place)
                verdict = self._nothing["no_answer"]  # until it is judged
            verdicts.append(verdict)
        for places, judged in zip(hard.values(), self._judge_all(list(hard)), strict=True):
            for place in places:
                verdicts[place] = judged
        return verdicts

    # --- what needs no worker ---

    def _known(self, gold: str, stated: Stated) -> Verdict | None:
        answer = stated.answer
        if answer is None:
            return self._nothing[stated.reason or "no_answer"]
        verdict = self._cache.get(gold, answer)
        if verdict is None:
            entry = is_entry(gold)
            if len(gold) > (ENTRY_LIMIT if entry else ANSWER_LIMIT):
                return Verdict(False, answer, "too_large", self.rule)
            if entry:
                require_scorers()
                return None
            clean = _clean_gold(gold)
            equal = quick_equal(clean, answer)
            if equal is not None:
                verdict = Verdict(equal, answer, "match" if equal else "mismatch", self.rule)
            elif too_large(answer) or too_large(clean):
                verdict = Verdict(False, answer, "too_large", self.rule)
            else:
                return None
            self._cache.put(gold, answer, verdict)
        return verdict

    def _count(self, verdicts: Sequence[Verdict]) -> None:
        with self._lock:
            self.ungradable += sum(verdict.reason in UNGRADABLE for verdict in verdicts)

    # --- what does ---

    def _judge_all(self, hard: Sequence[tuple[str, Stated]]) -> list[Verdict]:
        threads = min(self.workers, len(hard))
        if threads < 2:
            return [self._judge(gold, stated.answer or "") for gold, stated in hard]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda pair: self._judge(pair[0], pair[1].answer or ""), hard))

    def _judge(self, gold: str, answer: str) -> Verdict:
        """The verdict from the cache's file, from another thread that is judging the same pair, or from a worker."""
        return self._cache.once(gold, answer, lambda: self._judge_anew(gold, answer))

    def _judge_anew(self, gold: str, answer: str) -> Verdict:
        """The verdict of a worker; a time limit met and a worker's death are each retried once in a fresh one."""
        clean = gold if is_entry(gold) else _clean_gold(gold)
        question = Question(clean, answer, self.rule == "paper", self.time_limit)
        timeouts = 0
        deaths: list[WorkerDiedError] = []
        while True:
            try:
                outcome, seconds, symbolic = self._ask(question, fresh=bool(timeouts or deaths))
            except TimeLimitError:
                timeouts += 1
                if timeouts < 2:
                    continue
                verdict = Verdict(False, answer, "timeout", self.rule, timeouts * self.time_limit)
            except WorkerDiedError as death:
                deaths.append(death)
                if len(deaths) < 2:
                    continue
                if not all(death.by_text for death in deaths):
                    return Verdict(None, answer, "verifier_error", self.rule)  # never cached
                verdict = Verdict(False, answer, "too_large", self.rule)
            else:
                reason: Reason = outcome
                if outcome in ("mismatch", "unparsable") and offers_alternatives(question.gold, answer):
                    reason = "ambiguous" if self.rule != "paper" else outcome
                verdict = Verdict(outcome == "match", answer, reason, self.rule, seconds)
                if symbolic and len(self._symbolic) < _MOST_SYMBOLIC:
                    self._symbolic[id(verdict)] = verdict
            return verdict

    def _ask(self, question: Question, fresh: bool) -> Reply:
        slots = self._slots
        worker = slots.get()
        answered = False
        try:
            if worker is not None and (fresh or not worker.alive):
                self._drop(worker)
                worker = None
            if worker is None:
                worker = WorkerProcess()
                self._live.add(worker)
                worker.wait_until_ready()
            reply = worker.ask(question)
            answered = True
            return reply
        finally:  # whatever went wrong, Ctrl-C included, a worker that has not answered is not used again
            if not answered and worker is not None:
                self._drop(worker)
                worker = None
            slots.put(worker)

    def _drop(self, worker: WorkerProcess) -> None:
        worker.kill()
        self._live.discard(worker)

    def _new_slots(self) -> None:
        self._lock = threading.Lock()
        self._slots: LifoQueue[WorkerProcess | None] = LifoQueue()  # the last one used is the first to be used again
        for _ in range(self.workers):
            self._slots.put(None)

    def _forget_workers(self) -> None:
        """In a forked child: the workers belong to the parent, and locks may have been held when it forked."""
        for worker in self._live:
            worker.disown()
        self._live.clear()
        self._new_slots()
        self._cache.after_fork()


@lru_cache(maxsize=1 << 14)
def _clean_gold(gold: str) -> str:
    return stated_answer(gold).answer or without_formatting(gold)


def _kill_all(workers: set[WorkerProcess]) -> None:
    while workers:
        workers.pop().kill()


_verifiers: weakref.WeakSet[Verifier] = weakref.WeakSet()
_shared: dict[Rule, Verifier] = {}
_shared_lock = threading.Lock()


def _after_fork() -> None:
    global _shared_lock
    _shared_lock = threading.Lock()
    for verifier in _verifiers:
        verifier._forget_workers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
