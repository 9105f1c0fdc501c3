"""The judge of one run: it alone holds answers, solutions and labels, and writes what can be believed of the run.

The method's process sends every rollout once and gets one verdict back (`verdicts`); whatever else it wants to know it
asks for, and that is noted (`_ask`): the run's track is the highest that was noted. The ledger, the counts and the
track are therefore written on this side, and when all processes have ended the judge takes over their weights alone.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from unlearnbench.errors import MethodError
from unlearnbench.harness.privileged import POLICY, Privileged, asked
from unlearnbench.io.files import write_json
from unlearnbench.policies.decoder import Decoder
from unlearnbench.policies.weights import take_over
from unlearnbench.records import READS, TRACKS, Lora, Track, Verdict
from unlearnbench.splits import Split
from unlearnbench.training.ledger import Ledger, read_ledger
from unlearnbench.training.meter import flops
from unlearnbench.verifier import UNGRADABLE, Verifier
from unlearnbench.workers.channel import Arrays, array
from unlearnbench.workers.messages import Ask, Metrics, Reply, Request, Resume, Round, Save, StepRecord, Trained

RECORDS = ("method.json", "cost.json", "environment.json")
"""What the judge writes of a run that has ended, after its checkpoint."""
STATE = "judge.json"
"""What the judge must know to resume a run."""
TRAINING = ".training"
"""The folder, in a seed's own, that the method's processes may write to."""
SLACK_STEPS = 8
"""Steps of the reference recipe that a run may spend above its limit: it ends with the step that reaches it, and a
step of `dars`, 32 rollouts for each item that fails instead of 8, costs more than 5 of them."""


@dataclass(frozen=True)
class Terms:
    """What a run was given, as far as the judge must know it."""

    name: str
    source_hash: str
    seed: int
    fingerprint: str
    max_tokens: int
    base: Path
    """Folder of the policy whose configuration and tokenizer every policy of the run has."""
    most_flops: float | None
    """What the rollouts alone may cost before the judge refuses further ones."""
    hub: tuple[str, str | None] | None = None
    """The base's name and revision, where it is one of the Hub: what an adapter says that it belongs to."""


class Judge:
    """Answers the processes of one seed, and takes over what they leave."""

    def __init__(self, split: Split, place: Path, verifier: Verifier, terms: Terms) -> None:
        self.split, self.place, self.terms = split, place, terms
        self._verifier = verifier
        self._privileged = Privileged(split, place)
        self._decoder: Decoder | None = None
        self._ledger = Ledger(place)
        self._step, self._round = 0, -1
        """The step that is drawn, and its last round that was judged; no earlier one is judged again."""
        self._resumed, self._saved = False, 0
        self._drawn: dict[str, list[dict[str, Any]]] = {}
        """Rows of the ledger of the step that is drawn, by item in the order in which they were first drawn."""
        self._counts = _Counts()
        self._clock: Callable[[], float | None] = lambda: None
        self._cpu_before: float | None = None
        """Processor seconds of the run that the clock lacks: of earlier commands, less start-up."""
        self._lock = threading.Lock()

    def begin(self, clock: Callable[[], float | None]) -> None:
        """The run's processes are about to start; `clock` gives the processor seconds that they have used."""
        self._clock = clock
        self._ledger, self._counts, self._resumed = Ledger(self.place), _Counts(), False  # of an attempt that was lost
        (self.place / POLICY).mkdir(parents=True, exist_ok=True)

    # --- requests -----------------------------------------------------------------------------------------------

    def answer(self, request: Request, arrays: Arrays) -> Reply:
        """What the method's process is answered. Raises MethodError for what no honest process sends."""
        with self._lock:
            if not (self._resumed or isinstance(request, Resume | Ask)):
                raise MethodError(f"{self.terms.name} did not say which checkpoint it starts from; call loop.resume")
            match request:
                case Round():
                    verdicts = self._verdicts(request, arrays)
                    return Reply(value=[_message(verdict) for verdict in verdicts])
                case StepRecord():
                    self._record(request)
                case Metrics():
                    self._ledger.log(request.metrics)
                case Save():
                    self._save(request.steps)
                case Resume():
                    self._resume(request.steps)
                case Ask():
                    return Reply(value=self._ask(request))
        return Reply()

    def _verdicts(self, message: Round, arrays: Arrays) -> list[Verdict]:
        tokens, stopped = self._rollouts(message, arrays)
        texts = [text for draw in message.draws for text in draw.texts]
        ids = [draw.item_id for draw in message.draws for _ in draw.texts]
        verdicts = self._verifier.verify_many(
            [(self._privileged.gold(item_id), text) for item_id, text in zip(ids, texts, strict=True)]
        )
        self._round = message.round
        place = 0
        for draw in message.draws:
            rows = self._drawn.setdefault(draw.item_id, [])
            for text in draw.texts:
                verdict = verdicts[place]
                rows.append(
                    {
                        "step": message.step,
                        "round": message.round,
                        "item_id": draw.item_id,
                        "rollout": len(rows),
                        "source": draw.source,
                        "policy_version": draw.policy_version,
                        "completion": text,
                        "token_ids": tokens[place],
                        "finish": "stop" if stopped[place] else "length",
                        "correct": verdict.correct,
                        "answer": verdict.answer,
                        "reason": verdict.reason,
                        "reward": float(bool(verdict.correct)),
                        "valid_trace": self._privileged.valid_trace(draw.item_id, text, verdict),
                        "kept": False,
                    }
                )
                place += 1
        self._counts.add(verdicts, sum(map(len, tokens)))
        return verdicts

    def _rollouts(self, message: Round, arrays: Arrays) -> tuple[list[Any], list[bool]]:
        """Token ids and ends of a round's rollouts, checked. Raises MethodError naming what is wrong."""
        step, round_ = message.step, message.round
        if step < self._step or (step == self._step and round_ <= self._round):
            raise MethodError(
                f"{self.terms.name} asked for verdicts of step {step}, round {round_}, which are given; a rollout is "
                "judged once"
            )
        if step > self._step:
            self._end_step(step)
        count = sum(len(draw.texts) for draw in message.draws)
        lengths = array(arrays, 0, np.int32, count)
        flat = array(arrays, 1, np.int32, int(lengths.sum())).astype(np.int32, copy=False)
        stopped = array(arrays, 2, np.uint8, count).astype(bool).tolist()
        if count and (int(lengths.min()) < 1 or int(lengths.max()) > self.terms.max_tokens):
            raise MethodError(
                f"{self.terms.name} sent a rollout of {int(lengths.max())} tokens in step {step}; the recipe allows 1 "
                f"to {self.terms.max_tokens} (max_tokens)"
            )
        for draw in message.draws:
            self._privileged.require(draw.item_id)
        self._require_budget(int(lengths.sum()))
        tokens = np.split(flat, np.cumsum(lengths)[:-1]) if count else []
        decoder = self._decode()
        unknown = flat[(flat < 0) | (flat >= decoder.size)]
        if len(unknown):
            raise MethodError(f"{self.terms.name} sent token {int(unknown[0])} in step {step}, which the policy lacks")
        told = [text for draw in message.draws for text in draw.texts]
        for text, decoded, row, end in zip(told, decoder.texts(tokens), tokens, stopped, strict=True):
            if text != decoded:
                raise MethodError(
                    f"{self.terms.name} sent a text in step {step} that is not what its tokens say ({text[:40]!r})"
                )
            if end != (int(row[-1]) in decoder.stop_ids):
                raise MethodError(
                    f"{self.terms.name} sent a rollout in step {step} that says how it ended, and is wrong"
                )
        return tokens, stopped

    def _require_budget(self, more: int) -> None:
        """Refuse verdicts to a run whose rollouts alone cost more than its budget."""
        parameters, most = self.split.config.base_policy.parameters, self.terms.most_flops
        if parameters and most is not None and flops(parameters, self._counts.tokens + more, 0) > most:
            raise MethodError(
                f"{self.terms.name} drew {self._counts.tokens + more:,} tokens, which cost more than its "
                "budget; end the run when it is spent"
            )

    def _record(self, message: StepRecord) -> None:
        rows = [row for group in self._drawn.values() for row in group]
        if message.step < self._step or (rows and message.step > self._step) or len(message.rewards) != len(rows):
            raise MethodError(
                f"{self.terms.name} recorded step {message.step} with {len(message.rewards)} rewards for "
                f"{len(rows)} rollouts"
            )
        kept = set(message.kept)
        for row, reward in zip(rows, message.rewards, strict=True):
            row["reward"], row["kept"] = reward, row["item_id"] in kept
        self._end_step(message.step + 1)

    def _end_step(self, following: int) -> None:
        """Put the rollouts of the step that was drawn into the ledger; the next ones are of step `following`."""
        self._ledger.record([row for group in self._drawn.values() for row in group])
        self._drawn, self._step, self._round = {}, following, -1

    def _save(self, steps: int) -> None:
        if steps < self._saved:
            raise MethodError(f"{self.terms.name} saved step {steps} after step {self._saved}; save in their order")
        self._saved = steps
        self._end_step(self._step + bool(self._drawn))
        metrics_bytes = self._ledger.flush(steps)
        saved = [entry for entry in self._saves() if entry["steps"] < steps][-1:]  # a kill may precede the checkpoint
        now: dict[str, Any] = {"steps": steps, "metrics_bytes": metrics_bytes, "asked": self._counts.asked}
        now["cpu_seconds"] = self._cpu(self._clock())
        write_json(self._file, {"saves": [*saved, now]})

    def _resume(self, steps: int) -> None:
        if self._resumed:  # else it could draw, forget what it drew, and draw again
            raise MethodError(f"{self.terms.name} resumed twice; a run resumes once, before its first step")
        self._resumed, self._saved = True, steps
        found = {entry["steps"]: entry for entry in self._saves()}
        if steps and steps not in found:
            raise MethodError(
                f"{self.place} has a checkpoint of step {steps} that the judge knows nothing of; remove the folder"
            )
        saved = found.get(steps, {})
        self._ledger.truncate(steps, saved.get("metrics_bytes", 0))
        self._drawn, self._step, self._round = {}, steps, -1
        self._counts = _Counts.of(self.place, saved.get("asked", 0) + self._counts.asked)
        started, earlier = self._clock(), saved.get("cpu_seconds", 0.0)
        self._cpu_before = None if started is None or earlier is None else earlier - started

    def _cpu(self, clock: float | None) -> float | None:
        """Processor seconds of the run's training so far; None where the system does not count them."""
        return None if clock is None or self._cpu_before is None else round(self._cpu_before + clock, 2)

    def _ask(self, request: Ask) -> Any:
        if request.name == "process":
            self._require_drawn(request.item_id or "", request.text)
        value = self._privileged.ask(request.name, request.item_id, request.text, self._verifier)
        if isinstance(value, Verdict):
            self._counts.asked += 1
            return _message(value)
        return value

    def _require_drawn(self, item_id: str, text: str | None) -> None:
        """Raise MethodError unless the text is a rollout of the step that is drawn, and not yet recorded."""
        if all(row["completion"] != text for row in self._drawn.get(item_id, ())):
            raise MethodError(
                f"{self.terms.name} asked which steps of {str(text)[:40]!r} are valid, which it did not draw for that "
                "item in this step; ask in reward, plan_rollouts, inject or keep"
            )

    # --- the end ------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether an earlier command trained the run to its end, and everything is there that is known of it."""
        checkpoint = self.place / "checkpoint/state.json"
        try:
            state = json.loads(checkpoint.read_text())
            same = bool(state["finished"] and state["fingerprint"] == self.terms.fingerprint)
            # A record older than the checkpoint is that of a training whose checkpoint was lost.
            oldest = min((self.place / name).stat().st_mtime_ns for name in RECORDS)
            return same and oldest >= checkpoint.stat().st_mtime_ns
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def finish(self, trained: Trained, cpu_seconds: float) -> None:
        """All processes of the run have ended: take over its weights, and write what is known of it.

        Raises PolicyError for weights that are not of the base's kind, MethodError for a claim that contradicts what
        the judge counted.
        """
        self._end_step(self._step)
        self._ledger.flush(max(trained.steps, self._saved))  # what was drawn after the last checkpoint
        counts = _Counts.of(self.place, self._counts.asked)
        if trained.parameters < (self.split.config.base_policy.parameters or 0):
            raise MethodError(
                f"{self.terms.name} says that its policy has {trained.parameters:,} parameters, and the base has "
                f"{self.split.config.base_policy.parameters:,} by split.yaml; leave self.run's meter alone"
            )
        if trained.generated < counts.tokens:
            raise MethodError(
                f"{self.terms.name} says that it generated {trained.generated:,} tokens, and sent {counts.tokens:,}; "
                "leave self.run's meter alone"
            )
        shutil.rmtree(self.place / "evaluation", ignore_errors=True)  # nothing a method left there is measured
        lora = self._lora(trained)
        state = {"schema_version": 1, "finished": True, "fingerprint": self.terms.fingerprint, "step": trained.steps}
        take_over(
            self.place / TRAINING / "checkpoint",
            self.terms.base,
            self.place / "checkpoint",
            lora,
            state,
            self.terms.hub,
        )
        write_json(self.place / "method.json", self._method(trained))
        forward = trained.prefilled + trained.forward
        write_json(
            self.place / "cost.json",
            {
                "generated_tokens": trained.generated,
                "trained_tokens": trained.trained,
                "forward_tokens": forward,
                "flops": flops(trained.parameters, trained.generated + forward, trained.trained),
                "verifier_calls": counts.verdicts + counts.asked,
                "ungradable": counts.ungradable,
                "seconds": trained.seconds,
                "device": trained.environment.get("device", ""),
                "cpu_seconds": self._cpu(cpu_seconds),
            },
        )
        write_json(self.place / "environment.json", dict(trained.environment))
        with suppress(OSError):
            (self.place / POLICY).rmdir()  # nobody asked for it
        shutil.rmtree(self.place / TRAINING, ignore_errors=True)  # last: a kill before this is resumed from there

    def _lora(self, trained: Trained) -> Lora | None:
        """The adapter that a run trained, by its settings; None where it trained the weights themselves."""
        told = trained.settings.get("lora")
        try:
            return None if told is None else Lora.model_validate(told)
        except ValidationError as problem:
            raise MethodError(f"{self.terms.name} trained with lora={told!r:.80}, which no adapter has") from problem

    def _method(self, trained: Trained) -> dict[str, Any]:
        reads = asked(self.place)
        if trained.start != "base":
            reads = sorted({*reads, "base"})
        return {
            "name": self.terms.name,
            "class": trained.class_name,
            "source_hash": self.terms.source_hash,
            "track": track_of(trained.declared_track, reads),
            "reads": reads,
            "settings": dict(trained.settings),
            "hooks": list(trained.hooks),
            "start": trained.start,
        }

    # --- its own files ------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.place / STATE

    def _saves(self) -> list[dict[str, Any]]:
        return list(json.loads(self._file.read_text())["saves"]) if self._file.is_file() else []

    def _decode(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder.load(self.terms.base)
        return self._decoder


@dataclass
class _Counts:
    """What the judge counted of a run."""

    tokens: int = 0
    verdicts: int = 0
    ungradable: int = 0
    asked: int = 0
    """Verdicts on text that was not drawn."""

    @classmethod
    def of(cls, place: Path, asked: int = 0) -> _Counts:
        """From the ledger."""
        table = read_ledger(place, ("token_ids", "reason"))
        lengths = table["token_ids"].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        reasons = table["reason"].to_pylist()
        return cls(int(lengths.sum()), table.num_rows, sum(reason in UNGRADABLE for reason in reasons), asked)

    def add(self, verdicts: Sequence[Verdict], tokens: int) -> None:
        self.tokens += tokens
        self.verdicts += len(verdicts)
        self.ungradable += sum(verdict.reason in UNGRADABLE for verdict in verdicts)


def track_of(declared: Track, reads: Sequence[str]) -> Track:
    """The highest of what a method declares and what it has read (PROTOCOL 3.9)."""
    return max({declared, "verifier", *(READS[name] for name in reads)}, key=TRACKS.index)


def _message(verdict: Verdict) -> Mapping[str, Any]:
    return {
        "correct": verdict.correct,
        "answer": verdict.answer,
        "reason": verdict.reason,
        "rule": verdict.rule,
    }
