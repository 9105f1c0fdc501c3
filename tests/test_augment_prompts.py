"""What the models of `augment` are shown, and how their answers are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat_server import Server, augment_on, completion_of, problem_text, serving

from unlearnbench.cli.main import run
from unlearnbench.curation.augment import prompts
from unlearnbench.curation.augment.prompts import Kind, problems_in, shown
from unlearnbench.curation.text_overlap import Repeats
from unlearnbench.errors import RunError
from unlearnbench.splits import Split, load_split
from unlearnbench.splits.source_dataset import stripped


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving() as made:
        yield made


KINDS: tuple[Kind, ...] = ("similar", "sub_problems")


@pytest.mark.parametrize("kind", KINDS)
def test_both_models_are_shown_two_examples_in_the_form_that_is_asked_for(
    server: Server, tiny: Split, tmp_path: Path, kind: Kind
) -> None:
    augment_on(server, tiny, tmp_path / "out", kind=kind)
    for request in server.seen:
        messages = request["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * 2 + ["user"]
        for asked, replied in ((messages[0], messages[1]), (messages[2], messages[3])):
            if request["model"] == "writer":
                found = problems_in(replied["content"])
                assert len(found) == 2
                assert "2 new problems" in asked["content"] or "at most 2 smaller" in asked["content"]
                assert "<given_solution>" in asked["content"]
                assert {problem["question"] for problem in found} < set(shown(kind))
            else:
                assert re.search(r" \\boxed\{(9|25)\}$", replied["content"])


@pytest.mark.parametrize("name", ["micro", "smollm2-135m-arithmetic"])
def test_the_examples_are_no_items(name: str) -> None:
    split = load_split(name)
    known = Repeats([stripped(item.prompt) for item in split.items] + [stripped(twin.prompt) for twin in split.twins])
    assert not any(known.holds(question) for kind in KINDS for question in shown(kind))


def test_an_example_that_is_copied_is_no_new_problem(server: Server, tiny: Split, tmp_path: Path) -> None:
    copies = "\n".join(problem_text(question, "1") for question in shown("similar"))
    server.fault = lambda _: completion_of(copies)
    summary = augment_on(server, tiny, tmp_path / "out", count=50)
    assert (summary.generated, summary.items_unread, summary.requests) == (0, 2, 2)


def test_a_second_model_without_boxes_is_named(
    server: Server, tiny: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.fault = lambda _: completion_of(problem_text("What is 1 plus 1?", "2"))  # both write this; it has no box
    words = ("--split", str(tiny.path), "--endpoint", server.url, "--model", "writer", "--second-model", "solver")
    assert run(["augment", "--kind", "similar", *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    told = capsys.readouterr()
    assert "solver boxed no answer to 2 of 2 problems" in told.err
    summary = json.loads(told.out)
    assert (summary["generated"], summary["compared"], summary["agreed"]) == (2, 0, 0)


def test_another_prompt_is_another_run(
    server: Server, tiny: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    augment_on(server, tiny, out)
    before = len(server.seen)
    for place in ("_TASKS", "_GIVEN", "_FORM", "SOLVE", "SOLUTION", "_SHOWN"):
        with monkeypatch.context() as changed:
            old = getattr(prompts, place)
            new = f"{old} Please." if isinstance(old, str) else dict.fromkeys(KINDS, old["sub_problems"])
            changed.setattr(prompts, place, new)
            with pytest.raises(RunError, match=r"another prompt \('\w{12}' there, '\w{12}' here\)"):
                augment_on(server, tiny, out)
    file = out / "settings.json"
    old_settings = json.loads(file.read_text())
    del old_settings["prompt"]  # as it was before there were examples
    file.write_text(json.dumps(old_settings))
    with pytest.raises(RunError, match="another prompt"):
        augment_on(server, tiny, out)
    assert len(server.seen) == before


Q, S, A = "<problem>\nHow many?\n</problem>", "<solution>\n2 + 2 = 4. \\boxed{4}\n</solution>", "<answer>\n4\n</answer>"
OPEN = "<answer>\n4\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{Q}\n{S}\n{A}",
        f"Sure!\n{Q}{S}{A}\nHere it is.",
        f"{Q}\n{S}\n{OPEN}",  # the last tag is missing
        f"{Q}\n{S}\n{OPEN}\n{Q.replace('How many', 'How few')}",
        f"{Q}\n{S}",  # the answer is missing, but the solution ends in it
        f"{Q}\n{S.replace('boxed{4}', 'boxed{4}$.')}\n",
        f"{Q}\n<solution>\n2 + 2 = 4. \\boxed{{4}}\n{A}",
        f"<problem>\nHow many?\n{S}\n{A}",
        f"{Q}\n{S}\n<answer>\nThere are \\boxed{{4}}.\n</answer>",
        f"{Q.replace('How many', 'How few')}\n<solution>none</solution>\n{Q}\n{S}\n{A}",  # the first has no answer
    ],
)
def test_a_form_that_is_nearly_right_is_read_where_it_has_one_meaning(text: str) -> None:
    assert [(problem["question"], problem["answer"]) for problem in problems_in(text, ended=True)] == [
        ("How many?", "4")
    ]


@pytest.mark.parametrize(
    "text",
    [
        f"{Q}\n{A}",
        f"{Q}\n{S.replace('solution>', 'answer>')}\n{S}",
        f"{Q}\n{S}\n<answer>\n4\n</solution>",
        f"{Q}\n{S}\n{A}\n{A.replace('4', '5')}",  # two answers
        f"{Q}\n{S}\nSo we find:\n{A}",
        f"{Q}\n<solution>\n2 + 2 = 4.\n</solution>",
        f"{Q}\n<solution>\n\\boxed{{4}} or \\boxed{{5}}\n</solution>",
        f"{Q}\n<solution>\n\\boxed{{4}}, no, 5\n</solution>",
        f"{Q}\n<solution>\n2 + 2 = 4. \\boxed{{4}}\n</answer>",
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    assert problems_in(text, ended=True) == []


@pytest.mark.parametrize("text", [f"{Q}\n{S}\n{OPEN}", f"{Q}\n{S}", f"{Q}\n{S}\n<ans"])
def test_what_was_cut_short_is_not_completed(server: Server, tiny: Split, tmp_path: Path, text: str) -> None:
    assert problems_in(text) == []
    server.fault = lambda _: completion_of(text, "length")
    assert augment_on(server, tiny, tmp_path / "out").items_unread == 2
    server.fault = lambda _: completion_of(text)
    assert augment_on(server, tiny, tmp_path / "ended").items_unread == (2 if text.endswith("<ans") else 0)


def test_text_of_another_form_holds_no_problems() -> None:
    good = problem_text("How many?", "$\\boxed{\\frac{1}{2}}$")
    assert problems_in(good) == [{"question": "How many?", "solution": "so it is", "answer": "\\frac{1}{2}"}]
    assert problems_in(f"<think>{problem_text('draft', '1')}</think>{good}") == problems_in(good)
    for text in (
        "",
        "no problems",
        problem_text("", "1"),
        problem_text("How many?", ""),
        problem_text("x" * 9000, "1"),
    ):
        assert problems_in(text) == []
    assert problems_in(problem_text("How many?", "because " * 100)) == []
