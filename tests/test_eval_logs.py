"""`score` reads the per-sample logs of lm-eval-harness, lighteval, inspect_ai, prime-rl and verifiers as written."""

from __future__ import annotations

import gzip
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unlearnbench.adapters.eval_logs import log_reader, read_log
from unlearnbench.adapters.log_samples import Failures
from unlearnbench.adapters.problem_index import ProblemIndex
from unlearnbench.cli.main import run
from unlearnbench.errors import DataError
from unlearnbench.harness.rollouts.score import score_rollouts
from unlearnbench.io.tables import read_parquet
from unlearnbench.records import Item
from unlearnbench.splits import Split

Row = tuple[str, str, str | None]


def lm_eval_line(number: int, item: Item, texts: list[str], doc: dict[str, Any], name: str = "first") -> dict[str, Any]:
    """A line of samples_*.jsonl."""
    arguments = {"gen_args_0": {"arg_0": item.prompt, "arg_1": {"until": ["\n\n"], "do_sample": True}}}
    return {
        "doc_id": number,
        "doc": doc,
        "target": item.answer,
        "arguments": arguments,
        "resps": [texts],
        "filtered_resps": [texts[0]],
        "filter": name,
        "metrics": ["exact_match"],
        "doc_hash": "9cd9224a",
        "prompt_hash": "c2319373",
        "target_hash": "71ee45a3",
        "exact_match": 0.0,
    }


def lm_eval_log(path: Path, items: list[Item], texts: list[str], named: bool = True) -> Path:
    """Two filters, so that every document stands there twice."""
    lines = []
    for name in ("first", "majority"):
        for number, item in enumerate(items):
            doc = {"item_id": item.item_id, "prompt": item.prompt} if named else {"question": f"Solve: {item.prompt}"}
            lines.append(lm_eval_line(number, item, texts, doc, name))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def sample(number: int, epoch: int, item: Item, text: str, metadata: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A sample as inspect_ai writes it."""
    message = {"id": "4J5N", "content": text, "source": "generate", "role": "assistant", "model": "m"}
    asked = {"id": "Mcgi", "content": item.prompt, "source": "input", "role": "user"}
    stop = "max_tokens" if "cut" in text else "stop"
    return {
        "id": number,
        "epoch": epoch,
        "input": item.prompt,
        "target": item.answer,
        "messages": [asked, message],
        "output": {"model": "m", "choices": [{"message": message, "stop_reason": stop}], "completion": text},
        "scores": {"match": {"value": "I"}},
        "metadata": metadata,
        "attachments": {},
        "events": [],
    } | changes


def inspect_json(path: Path, samples: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps({"version": 2, "status": "success", "eval": {"task": "t"}, "samples": samples}))
    return path


def inspect_eval(path: Path, samples: list[dict[str, Any]], method: int) -> Path:
    """A zip whose members are stored, deflated or, as inspect_ai packs them today, compressed by zstd (method 93)."""
    members = {f"samples/{s['id']}_epoch_{s['epoch']}.json": json.dumps(s).encode() for s in samples}
    members["header.json"] = b'{"version": 2, "status": "success"}'
    if method != 93:
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    local, directory = b"", b""
    for name, content in members.items():
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(content)
        packed = sink.getvalue().to_pybytes()
        sizes = struct.pack("<IIIHH", zlib.crc32(content), len(packed), len(content), len(name), 0)
        directory += struct.pack("<IHHHHHH", 0x02014B50, 20, 63, 0, 93, 0, 0x5A21) + sizes
        directory += struct.pack("<HHHII", 0, 0, 0, 0, len(local)) + name.encode()
        local += struct.pack("<IHHHHH", 0x04034B50, 63, 0, 93, 0, 0x5A21) + sizes + name.encode() + packed
    count = len(members)
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, count, count, len(directory), len(local), 0)
    path.write_bytes(local + directory + end)
    return path


def read(path: Path, split: Split, seed: int = 0) -> list[Row]:
    assert log_reader(path) is not None
    batches = list(read_log(path, ProblemIndex(split), seed))
    assert {number for batch in batches for number in batch.rows["seed"].to_pylist()} == {seed}
    assert batches[-1].done == 1.0
    rows = [row for batch in batches for row in batch.rows.to_pylist()]
    return [(row["item_id"], row["completion"], row["finish"]) for row in rows]


def test_every_repeat_of_lm_eval_is_a_rollout_once(tiny: Split, tmp_path: Path) -> None:
    items = list(tiny.items[:3])
    expected = [(item.item_id, text, None) for item in items for text in ("a", "ü", "c")]
    named = lm_eval_log(tmp_path / "samples_a.jsonl", items, ["a", "ü", "c"])
    assert read(named, tiny, seed=3) == expected
    assert read(lm_eval_log(tmp_path / "samples_b.jsonl", items, ["a", "ü", "c"], named=False), tiny) == expected


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, 93])
def test_every_epoch_of_inspect_is_a_rollout(tiny: Split, tmp_path: Path, method: int) -> None:
    items = list(tiny.items[:3])
    samples = [
        sample(number, epoch, item, f"{item.answer} cut" if epoch == 2 else item.answer, {"item_id": item.item_id})
        for epoch in (1, 2)
        for number, item in enumerate(items, start=1)
    ]
    expected = [(item.item_id, item.answer, "stop") for item in items]
    expected += [(item.item_id, f"{item.answer} cut", "length") for item in items]
    assert read(inspect_eval(tmp_path / "log.eval", samples, method), tiny) == expected
    assert read(inspect_json(tmp_path / "log.json", samples), tiny) == expected


def test_a_position_is_no_id(tiny: Split, tmp_path: Path) -> None:
    other = tiny.items[5].item_id
    samples = [sample(1, 1, tiny.items[0], "x", {}, id=other)]  # inspect's own id, that of another item
    assert read(inspect_json(tmp_path / "log.json", samples), tiny) == [(tiny.items[0].item_id, "x", "stop")]


def test_messages_in_parts_and_attachments_are_put_together(tiny: Split, tmp_path: Path) -> None:
    item = tiny.items[0]
    parts = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "so "}, {"type": "text", "text": "5"}]
    asked = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "attachment://abc"}]
    message = {"message": {"role": "assistant", "content": parts}, "stop_reason": "stop"}
    long = {"message": {"role": "assistant", "content": "attachment://def"}, "stop_reason": "content_filter"}
    made = sample(1, 1, item, "", {}, input=asked, output={"choices": [message, long]})
    made["attachments"] = {"abc": item.prompt, "def": "long"}
    rows = read(inspect_json(tmp_path / "log.json", [made]), tiny)
    assert rows == [(item.item_id, "so 5", "stop"), (item.item_id, "long", None)]


def _twice(lines: list[dict[str, Any]]) -> None:
    lines[1]["doc_id"] = 0


def _scores(lines: list[dict[str, Any]]) -> None:
    lines[1]["resps"] = [[["-3.2", "False"]]]


def _requests(lines: list[dict[str, Any]]) -> None:
    lines[1]["resps"] = [["a"], ["b"]]


def _none(lines: list[dict[str, Any]]) -> None:
    lines[1]["resps"] = []


def _foreign(lines: list[dict[str, Any]]) -> None:
    lines[1]["doc"] = {"question": "who?"}
    lines[1]["arguments"]["gen_args_0"]["arg_0"] = "who?"


def _surrogate(lines: list[dict[str, Any]]) -> None:
    lines[1]["resps"] = [["\ud800"]]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_twice, "row 2, field 'doc_id': 0 occurs twice"),
        (_scores, "row 2, field 'resps': generated text was expected"),
        (_requests, "row 2, field 'resps': the repeats of one request"),
        (_none, "row 2, field 'resps': the repeats of one request"),
        (_foreign, "row 2: no field 'item_id', and its text is that of no problem of split tiny alone"),
        (_surrogate, "row 2, field 'resps': half of a surrogate pair"),
    ],
)
def test_what_is_wrong_in_a_log_of_lm_eval_is_named(
    tiny: Split, tmp_path: Path, spoil: Callable[[list[dict[str, Any]]], None], says: str
) -> None:
    lines = [lm_eval_line(n, item, ["a"], {"item_id": item.item_id}) for n, item in enumerate(tiny.items[:3])]
    spoil(lines)
    path = tmp_path / "samples_a.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match=says):
        list(read_log(path, ProblemIndex(tiny)))


def test_what_is_wrong_in_a_log_of_inspect_is_named(tiny: Split, tmp_path: Path) -> None:
    item = tiny.items[0]
    good = sample(1, 1, item, "x", {})
    path = tmp_path / "log.json"
    for bad, says in (
        (good | {"error": {"message": "no connection"}}, "row 2, field 'error': this sample failed"),
        (good | {"input": "who?"}, "row 2: no field 'item_id'"),
        (7, "row 2: a sample was expected"),
    ):
        inspect_json(path, [good, bad])  # type: ignore[list-item]
        with pytest.raises(DataError, match=says):
            list(read_log(path, ProblemIndex(tiny)))
    path.write_text("{}")
    with pytest.raises(DataError, match="field 'samples'"):
        list(read_log(path, ProblemIndex(tiny)))
    packed = inspect_eval(tmp_path / "log.eval", [good], 93)
    content = bytearray(packed.read_bytes())
    content[60] ^= 255
    packed.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"log\.eval, samples/1_epoch_1\.json: it (is damaged|cannot be unpacked)"):
        list(read_log(packed, ProblemIndex(tiny)))
    packed.write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"is not a readable \.eval log"):
        list(read_log(packed, ProblemIndex(tiny)))
    with pytest.raises(DataError, match="has no samples"):
        list(read_log(inspect_eval(packed, [], zipfile.ZIP_DEFLATED), ProblemIndex(tiny)))


def test_our_own_rows_are_no_log(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"item_id": "a", "completion": "b"}\n')
    assert log_reader(path) is None
    path.write_text("no json")
    assert log_reader(path) is None
    assert log_reader(tmp_path / "missing.jsonl") is None


# --- the forms that versions and back-ends give them ----------------------------------------------------------


def _asked(prompt: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "be brief"}, {"role": "user", "content": prompt}]


ARGUMENTS: dict[str, Callable[[str], object]] = {
    "named": lambda prompt: {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": []}}},
    "a list": lambda prompt: [[prompt, {"until": []}]],
    "a chat": lambda prompt: [[_asked(prompt), {"until": []}]],
    "JSON of a chat": lambda prompt: [[json.dumps(_asked(prompt)), {"until": []}]],
    "JSON in a list": lambda prompt: {"gen_args_0": {"arg_0": [json.dumps(_asked(prompt))], "arg_1": {}}},
    "a list of JSON in a list": lambda prompt: [[[json.dumps(_asked(prompt))], {}]],
    "ChatML": lambda prompt: [[f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", {}]],
    "few-shot": lambda prompt: [[f"Question: sum 1 1=\nAnswer: 2\n\nQuestion: {prompt}\nAnswer:", {}]],
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_prompt_is_found_however_lm_eval_writes_its_arguments(
    arguments: Callable[[str], object], tiny: Split, tmp_path: Path
) -> None:
    item = tiny.items[2]
    line = lm_eval_line(0, item, ["a"], {"question": "other words"}) | {"arguments": arguments(item.prompt)}
    path = tmp_path / "samples_a.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert read(path, tiny) == [(item.item_id, "a", None)]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "list", "json"])
def test_a_log_of_lm_eval_may_be_compressed_or_one_list_and_its_responses_flat(
    form: str, flat: bool, tiny: Split, tmp_path: Path
) -> None:
    items = list(tiny.items[:3])
    lines = [lm_eval_line(n, item, ["a"], {"item_id": item.item_id}) for n, item in enumerate(items)]
    lines = [line | ({"resps": ["a"]} if flat else {}) for line in lines]
    text = json.dumps(lines, indent=1) if form in ("list", "json") else "".join(json.dumps(x) + "\n" for x in lines)
    path = tmp_path / f"samples_a.{'jsonl' if form == 'list' else form}"
    path.write_bytes(gzip.compress(text.encode()) if form.endswith("gz") else text.encode())
    assert read(path, tiny) == [(item.item_id, "a", None) for item in items]


def test_a_sample_of_inspect_that_hit_a_limit_is_an_empty_rollout(tiny: Split, tmp_path: Path) -> None:
    """`inspect eval-retry` never runs it again: its error is null."""
    item = tiny.items[0]
    stopped: list[dict[str, Any]] = [
        {"output": {"model": "m", "choices": []}, "limit": {"type": "token", "limit": 100}, "error": None},
        {"output": {"model": "m", "choices": []}, "error": None},
        {"output": None, "limit": {"type": "time", "limit": 9}},
    ]
    samples = [sample(k, 1, item, "", {}, **changes) for k, changes in enumerate(stopped)]
    samples.append(sample(9, 1, item, "so \\boxed{5}", {}, limit={"type": "working", "limit": 9}))
    expected = [(item.item_id, "", "length")] * 3 + [(item.item_id, "so \\boxed{5}", "length")]
    assert read(inspect_json(tmp_path / "log.json", samples), tiny) == expected
    assert read(inspect_eval(tmp_path / "log.eval", samples, zipfile.ZIP_DEFLATED), tiny) == expected


def test_failed_samples_are_left_out_up_to_a_number_and_named(tiny: Split, tmp_path: Path) -> None:
    item = tiny.items[0]
    good, bad = sample(1, 1, item, "x", {}), sample(2, 1, item, "", {}, error={"message": "no connection"})
    path = inspect_json(tmp_path / "log.json", [bad, good, bad])
    failures = Failures(2)
    (batch,) = read_log(path, ProblemIndex(tiny), 0, failures)
    assert batch.rows["completion"].to_pylist() == ["x"]
    assert failures.names == [f"{path}, row 1", f"{path}, row 3"]
    for most, says in ((0, "row 1, field 'error'"), (1, "row 3, field 'error': .*, and 1 were left out before it")):
        with pytest.raises(DataError, match=f"{says}.*--skip-failed N leaves out"):
            list(read_log(path, ProblemIndex(tiny), 0, Failures(most)))


@pytest.mark.parametrize("version", ["0.13", "documented", "0.6"])
def test_details_of_lighteval_are_read(version: str, tiny: Split, tmp_path: Path) -> None:
    items = list(tiny.items[:2])
    rows = []
    for item in items:
        doc = {"query": item.prompt, "choices": [item.answer], "gold_index": 0, "specific": None}
        response = {
            "text": ["a", "b"],
            "input": [{"role": "user", "content": item.prompt}],
            "output_tokens": [[1], [2]],
        }
        if version == "0.6":
            rows.append({"example": item.prompt, "full_prompt": f"<s>{item.prompt}", "predictions": ["a", "b"]})
        elif version == "documented":
            rows.append({"__doc__": doc, "__model_response__": response, "__metric__": {"acc": 0.0}})
        else:
            rows.append({"doc": doc, "model_response": response, "metric": {"acc": 0.0}})
    path = tmp_path / "details_gsm8k|0_2025-11-05T14-43-47.148527.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert read(path, tiny) == [(item.item_id, text, None) for item in items for text in ("a", "b")]


def test_traces_of_prime_rl_are_read_with_their_step(tiny: Split, tmp_path: Path) -> None:
    item = tiny.items[0]

    def trace(text: str | None, **more: Any) -> dict[str, Any]:
        nodes = [{"message": message, "sampled": False} for message in _asked(item.prompt)]
        said = {"message": {"role": "assistant", "content": text}, "sampled": True, "parent": 1}
        return {"nodes": [*nodes, said] if text is not None else nodes, "rewards": {}, "stop_condition": "done"} | more

    episodes = [
        {"traces": [trace("a"), trace("b", is_truncated=True)], "run": {"type": "train", "work": {"step": 7}}},
        {"traces": [trace(None)], "task": {"data": {"item_id": tiny.items[1].item_id}}, "run": {"work": {"step": 8}}},
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(episode) + "\n" for episode in episodes))
    (batch,) = read_log(path, ProblemIndex(tiny))
    assert batch.rows["step"].to_pylist() == [7, 7, 8]
    assert read(path, tiny) == [
        (item.item_id, "a", "stop"),
        (item.item_id, "b", "length"),
        (tiny.items[1].item_id, "", "length"),
    ]
    path.write_text(json.dumps({"traces": [trace("", stop_condition="error")]}) + "\n")
    with pytest.raises(DataError, match="row 1, field 'traces': the run of this trace failed"):
        list(read_log(path, ProblemIndex(tiny)))


def test_logs_are_scored_with_the_seeds_that_are_named(tiny: Split, tmp_path: Path) -> None:
    items = list(tiny.items)
    right = [sample(n, 1, item, f"\\boxed{{{item.answer}}}", {}) for n, item in enumerate(items)]
    first = inspect_eval(tmp_path / "first.eval", right, 93)
    second = lm_eval_log(tmp_path / "second.jsonl", items, ["\\boxed{-1}"])
    third = tmp_path / "third.jsonl"
    third.write_text("".join(json.dumps({"item_id": i.item_id, "completion": "?"}) + "\n" for i in items))
    result = score_rollouts([first, second, third], tiny, tmp_path / "out", seeds=[1, 2, 3])
    assert list(result.seeds) == [1, 2, 3]
    assert result.groups["easy"].rate_after == pytest.approx(1 / 3)
    judged = read_parquet(tmp_path / "out" / "1" / "evaluation" / "items.parquet")
    assert all(judged["correct"].to_pylist())


def test_seeds_are_wanted_for_every_file(tiny: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = str(lm_eval_log(tmp_path / "a.jsonl", list(tiny.items), ["\\boxed{1}"]))
    words = ["--split", str(tiny.path), "--out", str(tmp_path / "out")]
    assert run(["score", log, *words, "--seed", "1", "--seed", "2"]) == 2
    assert "--seed is wanted once for each of the 1 FILEs, and was given 2 times" in capsys.readouterr().err
    assert run(["score", log, *words, "--seed", "4"]) == 0
    assert (tmp_path / "out" / "4" / "config.json").is_file()
