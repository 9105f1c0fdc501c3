"""The judge's protocol, message by message: what it answers, refuses, counts, notes and writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_judge import LocalLink, judge_of

from unlearnbench.errors import MethodError, SplitError
from unlearnbench.harness.judge import TRAINING, track_of
from unlearnbench.harness.privileged import asked
from unlearnbench.io.tables import read_parquet
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.splits import Split
from unlearnbench.training.judge import Draw
from unlearnbench.training.ledger import read_ledger, read_metrics
from unlearnbench.workers.channel import ChannelError
from unlearnbench.workers.judge_client import JudgeClient
from unlearnbench.workers.messages import DrawHeader, Round, Trained

MOST = 12
"""Tokens that a rollout of the tests may have."""


class Side:
    """Both sides of one run: the judge, and the client that asks it."""

    def __init__(self, split: Split, folder: Path, policy: Policy, **limits: Any) -> None:
        self.split, self.folder, self.policy = split, folder, policy
        self.judge = judge_of(split, folder, **{"max_tokens": MOST, **limits})
        self.client = JudgeClient(LocalLink(self.judge))  # type: ignore[arg-type]

    def draw(self, *texts: str, item: int = 0, **changes: Any) -> Draw:
        """Rollouts of an item that state these texts and end there."""
        tokens = [self.policy.encode_completion(text) for text in texts]
        told = [self.policy.decode(row) for row in tokens]
        name = self.split.items[item].item_id
        return Draw(**{
            "item_id": name, "source": "policy", "prompt_tokens": 5, "policy_version": 0, "tokens": tokens,
            "texts": told, "stopped": [True] * len(texts), **changes,
        })  # fmt: skip

    def right(self, item: int = 0) -> str:
        return f"1>\\boxed{{{self.split.items[item].answer}}}"

    def step(self, step: int, draws: Sequence[Draw]) -> None:
        """A step of one round, recorded and logged."""
        verdicts = self.client.verdicts(step, 0, draws)
        self.client.record(step, [float(bool(verdict.correct)) for verdict in verdicts], [])
        self.client.log({"step": step})

    def rows(self) -> list[dict[str, Any]]:
        return read_ledger(
            self.folder, ("step", "item_id", "rollout", "completion", "correct", "reward", "kept")
        ).to_pylist()


@pytest.fixture(scope="module")
def policy(small_split: Split) -> Policy:
    return load_policy(small_split.policy_path)


@pytest.fixture
def side(small_split: Split, tmp_path: Path, policy: Policy) -> Side:
    """A run that has begun."""
    found = Side(small_split, tmp_path / "1", policy)
    found.client.resume(0)
    return found


def _trained(**changes: Any) -> Trained:
    told = {
        "class_name": "Mine", "declared_track": "verifier", "start": "base", "hooks": [], "not_hooks": {},
        "settings": {}, "steps": 1, "seconds": 1.0, "parameters": 10**9, "generated": 10**6, "prefilled": 0,
        "forward": 0, "trained": 0, "environment": {},
    }  # fmt: skip
    return Trained.model_validate({**told, **changes})


# --- one verdict a rollout --------------------------------------------------------------------------------------------


def test_each_rollout_has_one_verdict_and_one_row(side: Side) -> None:
    draws = [side.draw(side.right(), "1>\\boxed{1}"), side.draw("no", item=1)]
    verdicts = side.client.verdicts(0, 0, draws)
    assert [verdict.correct for verdict in verdicts] == [True, False, False]
    assert [verdict.reason for verdict in verdicts] == ["match", "mismatch", "no_answer"]
    more = side.client.verdicts(0, 1, [side.draw(side.right())])  # a second round adds to the item's group
    assert [verdict.correct for verdict in more] == [True]
    one, two = (item.item_id for item in side.split.items[:2])
    side.client.record(0, [1.0, -0.5, 0.5, 0.0], [one])
    side.client.save(1)
    rows = side.rows()
    assert [(row["item_id"], row["rollout"]) for row in rows] == [(one, 0), (one, 1), (one, 2), (two, 0)]
    assert [row["reward"] for row in rows] == [1.0, -0.5, 0.5, 0.0]
    assert [row["correct"] for row in rows] == [True, False, True, False]
    assert [row["kept"] for row in rows] == [True, True, True, False]


def test_a_second_verdict_for_the_same_round_is_refused(side: Side) -> None:
    side.client.verdicts(0, 0, [side.draw("1>\\boxed{1}")])
    with pytest.raises(MethodError, match="asked for verdicts of step 0, round 0, which are given"):
        side.client.verdicts(0, 0, [side.draw("1>\\boxed{2}")])
    side.client.verdicts(0, 2, [side.draw("1>\\boxed{2}")])
    with pytest.raises(MethodError, match="round 1, which are given"):
        side.client.verdicts(0, 1, [side.draw("1>\\boxed{3}")])
    side.client.record(0, [0.0, 0.0], [])
    with pytest.raises(MethodError, match="which are given; a rollout is judged once"):  # the step is over
        side.client.verdicts(0, 3, [side.draw("1>\\boxed{3}")])
    side.client.verdicts(5, 0, [side.draw("1>\\boxed{3}")])
    with pytest.raises(MethodError, match="step 4, round 0, which are given"):
        side.client.verdicts(4, 0, [side.draw("1>\\boxed{4}")])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "another text": ({"texts": ["1>\\boxed{7}"]}, "is not what its tokens say"),
    "a text of more": ({"texts": ["1>\\boxed{5} "]}, "is not what its tokens say"),
    "another end": ({"stopped": [False]}, "says how it ended, and is wrong"),
    "an unknown item": ({"item_id": "nobody"}, "of 'nobody', which is not in its pool"),
    "a long name": ({"item_id": "x" * 10_000}, "which is not in its pool"),
    "a twin": ({"item_id": "TWIN"}, "which is not in its pool"),
    "a similar problem": ({"item_id": "SIMILAR"}, "which is not in its pool"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_no_policy_has_drawn_gets_no_verdict(what: str, side: Side) -> None:
    changes, message = BAD[what]
    names = {"TWIN": side.split.twins[0].twin_id}
    names["SIMILAR"] = read_parquet(side.split.path / "similar.parquet")["problem_id"][0].as_py()
    if (name := changes.get("item_id")) in names:
        changes = {"item_id": names[name]}
    with pytest.raises(MethodError, match=message) as caught:
        side.client.verdicts(0, 0, [side.draw("1>\\boxed{5}", **changes)])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    side.step(0, [side.draw("1>\\boxed{5}")])  # nothing of it is kept
    side.client.save(1)
    assert len(side.rows()) == 1


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([4] * (MOST + 1), f"of {MOST + 1} tokens in step 0; the recipe allows 1 to {MOST}"),
        ([], r"sent a rollout of 0 tokens in step 0; the recipe allows 1 to"),
        ([4, 51, 1], "sent token 51 in step 0, which the policy lacks"),
        ([4, -1, 1], "sent token -1 in step 0, which the policy lacks"),
    ],
)
def test_tokens_that_no_rollout_has_are_refused(tokens: list[int], message: str, side: Side) -> None:
    row = np.array(tokens, np.int32)
    known = [token for token in tokens if 0 <= token < 51]
    draw = side.draw("1", tokens=[row], texts=[side.policy.decode(known)], stopped=[bool(tokens) and tokens[-1] == 1])
    with pytest.raises(MethodError, match=message):
        side.client.verdicts(0, 0, [draw])


@pytest.mark.parametrize(
    ("lengths", "tokens", "stopped"),
    [([2], [4], [1]), ([1, 1], [4, 1], [1, 1]), ([-1], [], [1]), ([1], [4], []), ([2**31 - 1], [4], [1]), ([], [], [])],
)
def test_arrays_that_do_not_fit_are_refused(
    lengths: list[int], tokens: list[int], stopped: list[int], side: Side
) -> None:
    item = side.split.items[0].item_id
    header = DrawHeader(item_id=item, source="policy", prompt_tokens=1, policy_version=0, texts=["x"])
    arrays = (np.array(lengths, np.int32), np.array(tokens, np.int32), np.array(stopped, np.uint8))
    with pytest.raises((ChannelError, MethodError)):
        side.judge.answer(Round(step=0, round=0, draws=[header]), tuple(array.tobytes() for array in arrays))
    with pytest.raises(ChannelError, match="array 2 is missing"):
        told = (np.array([1], np.int32).tobytes(), np.array([1], np.int32).tobytes())
        side.judge.answer(Round(step=0, round=0, draws=[header]), told)


def test_a_run_that_has_spent_its_budget_gets_no_further_verdicts(
    small_split: Split, tmp_path: Path, policy: Policy
) -> None:
    parameters = small_split.config.base_policy.parameters
    assert parameters == policy.parameters
    length = len(policy.encode_completion("1>\\boxed{5}"))
    side = Side(small_split, tmp_path, policy, most_flops=2.0 * parameters * 3 * length)
    side.client.resume(0)
    side.step(0, [side.draw("1>\\boxed{5}", "1>\\boxed{5}")])
    with pytest.raises(MethodError, match=f"drew {4 * length} tokens, which cost more than its budget"):
        side.client.verdicts(1, 0, [side.draw("1>\\boxed{5}", "1>\\boxed{5}")])
    side.step(1, [side.draw("1>\\boxed{5}")])
    side.client.save(2)
    again = Side(small_split, tmp_path, policy, most_flops=2.0 * parameters * 3 * length)
    again.client.resume(2)  # what was drawn before counts after it
    with pytest.raises(MethodError, match=f"drew {4 * length} tokens"):
        again.client.verdicts(2, 0, [again.draw("1>\\boxed{5}")])


def test_rewards_are_those_of_the_step_that_was_drawn(side: Side) -> None:
    side.client.record(0, [], [])  # a step without rollouts, as of a method that learns from solutions
    side.client.record(1, [], [])
    side.client.verdicts(2, 0, [side.draw("1>\\boxed{5}", "1")])
    for step, rewards in ((2, [1.0]), (2, [1.0] * 3), (1, [1.0] * 2), (3, [1.0] * 2)):
        with pytest.raises(MethodError, match=f"recorded step {step} with {len(rewards)} rewards for 2 rollouts"):
            side.client.record(step, rewards, [])
    side.client.record(2, [1.0, 0.0], [])
    with pytest.raises(MethodError, match="recorded step 2 with 0 rewards"):
        side.client.record(2, [], [])


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_resuming_forgets_what_came_after_the_checkpoint(small_split: Split, tmp_path: Path, policy: Policy) -> None:
    side = Side(small_split, tmp_path, policy)
    side.client.resume(0)
    for step in range(4):
        side.step(step, [side.draw(f"1>\\boxed{{{step}}}")])
        if step % 2:
            side.client.save(step + 1)
    side.step(4, [side.draw("1>\\boxed{4}")])  # and here the process is killed
    later = Side(small_split, tmp_path, policy)
    later.client.resume(4)
    assert [row["step"] for row in later.rows()] == [0, 1, 2, 3]
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1, 2, 3]
    # the judge has noted the save of step 4, and the kill came before the checkpoint was written
    last = Side(small_split, tmp_path, policy)
    last.client.resume(2)
    assert [row["step"] for row in last.rows()] == [0, 1]
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 1]
    with pytest.raises(MethodError, match="verdicts of step 1, round 0, which are given"):
        last.client.verdicts(1, 0, [last.draw("1>\\boxed{1}")])
    last.step(2, [last.draw("1>\\boxed{2}")])
    last.client.save(3)
    assert [row["step"] for row in last.rows()] == [0, 1, 2]
    first = Side(small_split, tmp_path, policy)
    first.client.resume(0)
    assert first.rows() == read_metrics(tmp_path) == []


def test_a_run_resumes_once_and_before_all_else(small_split: Split, tmp_path: Path, policy: Policy) -> None:
    """Else it could draw, forget what it drew, and draw again within the same budget."""
    side = Side(small_split, tmp_path, policy)
    for early in (
        lambda: side.client.verdicts(0, 0, [side.draw("1")]),
        lambda: side.client.record(0, [], []),
        lambda: side.client.log({"step": 0}),
        lambda: side.client.save(1),
    ):
        with pytest.raises(MethodError, match="did not say which checkpoint it starts from"):
            early()
    side.client.resume(0)
    side.step(0, [side.draw("1")])
    side.client.save(1)
    with pytest.raises(MethodError, match="resumed twice"):
        side.client.resume(0)
    assert len(side.rows()) == 1


def test_a_checkpoint_that_the_judge_knows_nothing_of_is_refused(
    small_split: Split, tmp_path: Path, policy: Policy
) -> None:
    with pytest.raises(MethodError, match="has a checkpoint of step 7 that the judge knows nothing of"):
        Side(small_split, tmp_path, policy).client.resume(7)


def test_saving_loses_no_rollout(side: Side) -> None:
    side.step(0, [side.draw("1")])
    side.client.save(3)
    side.step(1, [side.draw("2")])
    side.client.save(3)  # once more at the same step
    assert [row["completion"] for row in side.rows()] == ["1", "2"]
    with pytest.raises(MethodError, match="saved step 2 after step 3"):
        side.client.save(2)


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_noted_before_it_is_answered(side: Side) -> None:
    item = side.split.items[0]
    assert side.client.ask("verdict", item.item_id, side.right()).correct
    assert asked(side.folder) == ["verdict"]
    assert side.client.ask("answer", item.item_id) == item.answer
    assert side.client.ask("solution", item.item_id) == item.solution
    assert side.client.ask("labels")[item.item_id] == item.group
    for name, item_id, told in (
        ("answer", "nobody", "'nobody', which is not in its pool"),
        ("twins", item.item_id, "nothing called 'twins'"),
        ("../labels", None, "nothing called '../labels'"),
    ):
        with pytest.raises((MethodError, SplitError), match=told):
            side.client.ask(name, item_id)
    assert asked(side.folder) == ["answer", "labels", "solution", "verdict"]
    assert track_of("verifier", asked(side.folder)) == "labels"


def test_related_problems_may_be_drawn_once_they_were_asked_for(
    small_split: Split, tmp_path: Path, policy: Policy
) -> None:
    side = Side(small_split, tmp_path, policy)
    side.client.resume(0)
    item = next(item for item in small_split.items if side.client.ask("similar", item.item_id))
    name, prompt = side.client.ask("similar", item.item_id)[0]
    assert prompt not in {item.prompt for item in small_split.items}
    side.step(0, [side.draw("1", item_id=name)])
    side.client.save(1)
    again = Side(small_split, tmp_path, policy)
    again.client.resume(1)
    again.step(1, [again.draw("1", item_id=name)])  # also when the run was resumed


def test_a_policy_that_several_ask_for_at_once_is_copied_once(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnbench.harness import privileged

    copied: list[Path] = []
    write = privileged.write_bytes
    monkeypatch.setattr(privileged, "write_bytes", lambda path, data: (copied.append(path), write(path, data)))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(side.client.ask("teacher"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder,) = {Path(name) for name in found}
    origin = side.split.path / "positive_control/policy"
    assert sorted(path.name for path in copied) == sorted(path.name for path in origin.iterdir())
    assert copied[-1].name == "config.json"  # without it the copy is not complete
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in origin.iterdir())


# --- the end ----------------------------------------------------------------------------------------------------------


def _leave_weights(side: Side, folder: Path | None = None) -> Path:
    """The base's own weights where a method's process leaves them."""
    place = folder or side.folder / TRAINING / "checkpoint"
    place.mkdir(parents=True, exist_ok=True)
    base = side.split.policy_path
    assert isinstance(base, Path)
    (place / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes())
    return place


def test_the_end_is_written_from_what_the_judge_counted(side: Side) -> None:
    _leave_weights(side)
    item = side.split.items[0].item_id
    side.step(0, [side.draw(side.right(), "1", "2")])
    side.client.ask("verdict", item, "5")
    side.client.save(1)
    assert not side.judge.finished
    tokens = sum(len(side.policy.encode_completion(text)) for text in (side.right(), "1", "2"))
    side.judge.finish(_trained(generated=tokens, prefilled=5, parameters=side.policy.parameters), 2.0)
    cost = json.loads((side.folder / "cost.json").read_text())
    assert (cost["generated_tokens"], cost["verifier_calls"]) == (tokens, 4)
    assert cost["flops"] == 2 * side.policy.parameters * (tokens + 5)
    method = json.loads((side.folder / "method.json").read_text())
    assert (method["track"], method["reads"]) == ("answer", ["verdict"])
    assert not (side.folder / TRAINING).exists()
    assert not (side.folder / "other_policy").exists()
    assert side.judge.finished
    assert judge_of(side.split, side.folder).finished  # for another command, too


@pytest.mark.parametrize("hidden", [True, False])
def test_a_note_of_what_was_asked_is_not_the_processs_to_hide(side: Side, hidden: bool) -> None:
    """It claims to have started from the base and to have read nothing: the judge's note decides."""
    _leave_weights(side)
    side.client.ask("teacher")
    if hidden:
        side.client.ask("labels")
    side.client.save(1)
    side.judge.finish(_trained(declared_track="verifier"), 0.0)
    assert json.loads((side.folder / "method.json").read_text())["track"] == ("labels" if hidden else "teacher")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ({"generated": 3}, r"says that it generated 3 tokens, and sent 12; leave self.run's meter alone"),
        ({"parameters": 7}, r"says that its policy has 7 parameters, and the base has 412,032"),
        ({"settings": {"lora": {"rank": -1}}}, r"trained with lora=.*, which no adapter has"),
        ({"settings": {"lora": "all"}}, r"trained with lora='all', which no adapter has"),
    ],
)
def test_claims_that_contradict_what_was_counted_are_refused(claim: dict[str, Any], message: str, side: Side) -> None:
    _leave_weights(side)
    text = "1>\\boxed{5}"
    assert len(side.policy.encode_completion(text)) == 6
    side.step(0, [side.draw(text, text)])
    with pytest.raises(MethodError, match=message) as caught:  # though it did not save what it drew
        side.judge.finish(_trained(**claim), 0.0)
    assert "\n" not in str(caught.value)
    assert not side.judge.finished and not (side.folder / "cost.json").exists()


def test_what_was_drawn_after_the_last_checkpoint_is_in_the_ledger(side: Side) -> None:
    _leave_weights(side)
    side.step(0, [side.draw("1")])
    side.client.save(1)
    side.step(1, [side.draw("2")])
    side.client.verdicts(2, 0, [side.draw("3")])  # neither recorded nor saved
    side.judge.finish(_trained(steps=0), 0.0)
    assert [row["completion"] for row in side.rows()] == ["1", "2", "3"]


def test_an_end_that_was_cut_off_is_made_again(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnbench.harness import judge

    _leave_weights(side)
    side.client.save(1)
    write = judge.write_json

    def full(path: Path, value: object) -> None:
        if path.name == "environment.json":
            raise KeyboardInterrupt
        write(path, value)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(judge, "write_json", full)
        side.judge.finish(_trained(), 0.0)
    again = judge_of(side.split, side.folder)
    assert not again.finished
    assert (side.folder / TRAINING / "checkpoint/model.safetensors").is_file()  # to take over once more
    JudgeClient(LocalLink(again)).resume(1)  # type: ignore[arg-type]
    again.finish(_trained(), 0.0)
    assert again.finished
