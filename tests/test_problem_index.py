"""Which problem a prompt asks: out of chat templates, inside of longer prompts, and never by guessing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import tiny as tiny_split

from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.io.chats import asked, last_turn
from unlearnbench.records import Item
from unlearnbench.splits import Split

LONG = "How many positive integers below 1000 are divisible by neither 2 nor 5, nor by 7?"
LATER = f"{LONG} Give the answer modulo 10."
TEMPLATES = {
    "as it is": "{}",
    "spaces": "  {}\n",
    "ChatML": "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n",
    "ChatML without special tokens": "system\nYou are helpful.\nuser\n{}\nassistant\n",
    "Llama 3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "Llama 3 without special tokens": "system\n\nToday Date: 26 Jul 2024\n\nuser\n\n{}assistant\n\n",
    "Llama 2": "<s>[INST] <<SYS>>\nYou are helpful.\n<</SYS>>\n\n{} [/INST]",
    "Mistral": "<s>[INST] {} [/INST]",
    "Gemma": "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n",
    "Gemma without special tokens": "user\n{}\nmodel\n",
    "DeepSeek": "<\uff5cUser\uff5c>{}<\uff5cAssistant\uff5c><think>\n",
    "Phi": "<|system|>Be brief.<|end|><|user|>{}<|end|><|assistant|>",
    "Tulu": "<|user|>\n{}\n<|assistant|>\n",
    "gpt-oss": "<|start|>system<|message|>x<|end|><|start|>user<|message|>{}<|end|><|start|>assistant",
    "R1-Zero": "A conversation between User and Assistant. The user asks.\nUser: {}\nAssistant: <think>",
    "plain": "Question: {}\nAnswer:",
    "Qwen's instruction": "<|im_start|>user\n{}\nPlease reason step by step, and put your final answer within "
    "\\boxed{{}}.<|im_end|>\n<|im_start|>assistant\n",
    "two turns": "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\nhi<|im_end|>\n<|im_start|>user\n{}"
    "<|im_end|>",
}


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Prompts of a few characters, and two long ones of which one begins as the other."""
    items = tiny_split.items()
    items[0] = items[0].model_copy(update={"prompt": LONG})
    items[1] = items[1].model_copy(update={"prompt": LATER})
    items[2] = items[2].model_copy(update={"prompt": "twice the same"})
    items[3] = items[3].model_copy(update={"prompt": "twice  the same"})
    return tiny_split.make(tmp_path / "split", items=items)


def _item(split: Split, place: int) -> Item:
    return split.items[place]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_prompt_is_known_in_its_template(template: str, place: int, split: Split) -> None:
    item = _item(split, place)
    assert ProblemIndex(split).match(template.format(item.prompt)) == item.item_id


def test_a_long_problem_is_known_inside_a_longer_prompt(split: Split) -> None:
    index = ProblemIndex(split)
    assert index.match(f"Solve this. {LONG} Think first.") == _item(split, 0).item_id
    assert index.match(f"Solve this.\n\n{LATER}\nThink first.") == _item(split, 1).item_id
    assert index.match(f"Example: {LATER} 5. Now: {LONG} Think first.") is None  # two of them: nobody guesses
    assert index.match(f"Solve this. {LONG}less Think first.") is None  # not up to the end of a word
    assert index.match("Compute sum 4 5= now") is None  # short problems must be all of the prompt
    assert index.match("twice the same") is None
    assert index.match("") is None
    assert index.match("who?") is None


def test_a_split_with_templates_in_its_prompts_knows_bare_questions(tmp_path: Path) -> None:
    items = tiny_split.items()
    for place, item in enumerate(items):
        prompt = (
            f"<|im_start|>user\nWhat is {item.prompt}?\nPlease reason step by step, and put your final answer within "
        )
        prompt += "\\boxed{}.<|im_end|>\n<|im_start|>assistant\n"
        items[place] = item.model_copy(update={"prompt": prompt})
    index = ProblemIndex(tiny_split.make(tmp_path / "split", items=items))
    assert index.match("What is sum 3 5=?") == items[3].item_id
    assert index.match("user\nWhat is sum 3 5=?\nassistant\n") == items[3].item_id


def test_no_prompt_takes_long(split: Split) -> None:
    index = ProblemIndex(split)
    began = time.process_time()
    for hostile in (
        "user\n" * 400_000,
        "[INST]" * 300_000,
        LONG[:16] * 100_000,
        f"{LONG} " * 20_000,
        "<|user|>" * 200_000,
    ):
        index.match(hostile)
    assert time.process_time() - began < 10


def test_what_was_asked_and_said_last() -> None:
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert asked(chat) == asked([chat]) == "c"
    assert asked('[{"role": "user", "content": "c"}]') == "c"
    assert asked('"[{\\"role\\": \\"user\\", \\"content\\": \\"c\\"}]"') == "c"
    assert asked("[1, 2]") == "[1, 2]"
    assert asked([{"role": "assistant", "content": "b"}]) is None
    assert asked(5) is None
    assert last_turn(chat, "assistant") == "b"
    assert last_turn([{"role": "assistant", "content": None}], "assistant") == ""
