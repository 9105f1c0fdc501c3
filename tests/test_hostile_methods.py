"""Methods that try to cheat, run as `eval` runs any method: what each of them gets, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from slow_parameters import but_first_slow

from unlearnbench import evaluate
from unlearnbench.errors import MethodError, PolicyError, UnlearnBenchError
from unlearnbench.io.tables import read_parquet
from unlearnbench.records import Result
from unlearnbench.splits import Split
from unlearnbench.workers.isolation import available
from unlearnbench.workers.jobs import Compute

WALLS = available()
walled = pytest.mark.skipif(
    not {"mounts", "processes", "network", "landlock"} <= set(WALLS), reason="this kernel has not all the walls"
)


def _run(body: str, split: Split, folder: Path, **options: Any) -> Result:
    file = folder / "mine.py"
    file.write_text("import unlearnbench as ub\n\nclass Mine(ub.Method):\n" + body)
    return evaluate(str(file), split, quick=True, out=folder / "run", **options)


def _said(folder: Path) -> dict[str, Any]:
    """What the method printed as one line of JSON."""
    lines = (folder / "run/1/log.txt").read_text().splitlines()
    return json.loads(next(line for line in lines if line.startswith('{"found"')))["found"]  # type: ignore[no-any-return]


SEARCHES = r"""
    def setup(self):
        import json, os, re, socket
        import numpy as np
        from pathlib import Path
        found = {}
        prompts = {item.prompt for item in self.run.items}
        boxes, others = 0, set()
        with open("/proc/self/mem", "rb", 0) as memory:
            for line in Path("/proc/self/maps").read_text().splitlines():
                place, rights = line.split()[:2]
                if "rw" not in rights or "[v" in line:  # what is not written to is code and libraries
                    continue
                start, stop = (int(end, 16) for end in place.split("-"))
                try:
                    memory.seek(start)
                    content = memory.read(stop - start)
                except (OSError, ValueError, OverflowError):
                    continue
                boxes += len(re.findall(rb">\\boxed\{\d{1,3}\}", content))
                found_in = np.frombuffer(content, np.uint8)
                ends = 10 + np.flatnonzero(found_in[10:] == ord("="))  # a prompt has a space 3 and 6 bytes before it
                for end in ends[(found_in[ends - 3] == 32) & (found_in[ends - 6] == 32)]:
                    text = re.search(rb"\b[a-z]{2,3} [1-9]\d [1-9]\d=$", content[max(0, end - 10):end + 1])
                    others |= {text[0].decode()} if text else set()
        found["boxes"], found["twins"], found["own"] = boxes, len(others - prompts), len(others & prompts)
        found["parent"] = os.getppid()
        found["processes"] = sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        found["names"] = [name for name in os.environ if re.search("TOKEN$|SECRET|KEY", name)]
        found["descriptors"] = sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                                      if os.path.exists(f"/proc/self/fd/{n}"))
        opened = []
        for place in PLACES:
            for path in [Path(place), *Path(place).rglob("*")] if os.access(place, os.R_OK) else []:
                try:
                    if path.is_file() and path.open("rb").read(1):
                        opened.append(str(path))
                except OSError:
                    pass
        found["opened"] = opened
        try:
            socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
            found["network"] = True
        except OSError:
            found["network"] = False
        written = []
        for place in (*PLACES, "/tmp", os.path.dirname(os.path.dirname(os.getcwd()))):
            try:
                Path(place, "mine.txt").write_text("x")
                written.append(place)
            except OSError:
                pass
        found["written"] = written
        print(json.dumps({"found": found}), flush=True)
"""
WRITES = """
    def train(self, loop):
        import os, pathlib, subprocess, sys, json
        import numpy as np, pyarrow as pa, pyarrow.parquet as pq
        self.run.reads = set()
        loop.meter.generated = loop.meter.trained = 0
        rows = pa.Table.from_pylist([dict(item_id=i.item_id, sample=0, completion="", token_ids=[1], finish="stop",
                                          correct=True, answer="1", reason="match") for i in self.run.items])
        seed = pathlib.Path(os.getcwd()).parent
        for place in (seed, seed / ".training"):
            for name in ("evaluation/items.parquet", "rollouts/000024.parquet", "cost.json", "checkpoint/config.json"):
                try:
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    pq.write_table(rows, place / name)
                except OSError:
                    pass
        code = ("import time, pathlib, sys\\ntime.sleep(3)\\n"
                "for place in sys.argv[1:]:\\n    pathlib.Path(place).mkdir(parents=True, exist_ok=True)\\n"
                "    pathlib.Path(place, 'late.txt').write_text('x')")
        subprocess.Popen([sys.executable, "-c", code, str(seed / "evaluation"), str(seed / "checkpoint")],
                         start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
"""


@pytest.fixture(scope="module")
def searched(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The run of a method that searches before it trains, and writes where it may in place of training.

    The command's working folder holds modules that are named like libraries.
    """
    folder = tmp_path_factory.mktemp("searched")
    earlier = folder / "earlier.txt"
    earlier.write_text("results of another run")
    for name in ("queue", "torch", "platform", "transformers"):
        (folder / f"{name}.py").write_text("raise SystemExit('taken from the working folder')")
    with socket.socket() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "secret")
        patch.chdir(folder)
        server.bind(("127.0.0.1", 0))
        server.listen()
        body = SEARCHES.replace("PLACES", repr([str(small_split.path), str(earlier)])) + WRITES
        return folder, _run(body.replace("PORT", str(server.getsockname()[1])), small_split, folder)


@walled
def test_a_method_finds_no_answer_twin_or_label_anywhere(searched: tuple[Path, Result]) -> None:
    """It searches its memory, its environment, its descriptors, the split's files, other processes and the network."""
    found = _said(searched[0])
    assert (found["boxes"], found["twins"]) == (0, 0)
    assert found["own"] > 0  # it finds what is there: the prompts
    assert found["names"] == []
    assert found["opened"] == found["written"] == []
    assert found["parent"] == 0  # nobody that it could look at
    assert len(found["processes"]) == 1
    assert not found["network"]
    assert not [name for name in found["descriptors"] if "parquet" in name or "twins" in name]


@walled
def test_modules_of_the_working_folder_are_never_taken_for_libraries(searched: tuple[Path, Result]) -> None:
    assert searched[1].groups["easy"].rate_after is not None  # it was trained and measured all the same


@walled
def test_what_a_method_writes_beside_its_weights_is_not_taken_over(
    searched: tuple[Path, Result], small_split: Split
) -> None:
    """Its own evaluation, ledger, cost and configuration, and a child that outlives it to write them later."""
    folder, result = searched
    assert result.method.track == "verifier"
    place = folder / "run/1"
    assert read_parquet(place / "evaluation/items.parquet").num_rows == 8 * len(small_split.items)
    assert sorted(path.name for path in (place / "rollouts").iterdir()) == []
    time.sleep(3.5)
    assert not list((folder / "run").rglob("late.txt"))
    assert json.loads((place / "checkpoint/config.json").read_text())["model_type"] == "qwen2"


TRAIN = "\n    def train(self, loop):\n"
SWAPS = """
    def train(self, loop):
        import json, pathlib
        from safetensors.numpy import load_file, save_file
        loop.save(finished=True)
        folder = pathlib.Path(loop.spec.folder) / "checkpoint"
        weights = load_file(folder / "model.safetensors")
        CHANGE
        save_file(weights, folder / "model.safetensors")
        (folder / "tokenizer.json").write_text("{}")
        (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
        loop.save = lambda finished: None
"""
CHANGES = {
    "not finite": ("weights[sorted(weights)[0]][:] = float('nan')", "hold values that are not finite in"),
    "another shape": (
        "import numpy as np; k = sorted(weights)[0]; weights[k] = np.zeros((7, 7), np.float32)",
        "another architecture",
    ),
    "more layers": ("weights['model.layers.9.x'] = weights[sorted(weights)[0]]", "another architecture"),
    "half precision": ("import numpy as np; k = sorted(weights)[0]; weights[k] = weights[k].astype(np.float16)", "F16"),
}


@pytest.mark.parametrize("change", but_first_slow(CHANGES))  # tests/test_weights.py has many more
def test_weights_of_another_kind_are_refused_by_name(change: str, small_split: Split, tmp_path: Path) -> None:
    code, message = CHANGES[change]
    with pytest.raises(PolicyError, match=message) as caught:
        _run(SWAPS.replace("CHANGE", code), small_split, tmp_path)
    assert "\n" not in str(caught.value)


SPEAKS = """
    def train(self, loop):
        import os
        for number in range(3, 12):
            try:
                os.write(number, JUNK)
            except OSError:
                pass
        os._exit(0)
"""
JUNK = {
    "no message": b"hello\n",
    "not UTF-8": b"\xff\xfe\x00\n",
    "deep": b"[" * 100_000 + b"\n",
    "another record": b'{"message": {"kind": "trained"}, "arrays": []}\n',
    "huge array": b'{"message": {"kind": "done"}, "arrays": [99999999999999]}\n',
}


@pytest.mark.slow  # tests/test_worker_group.py has these and more, without a policy
@pytest.mark.parametrize("junk", JUNK)
def test_junk_on_the_pipe_is_one_sentence(junk: str, small_split: Split, tmp_path: Path) -> None:
    with pytest.raises(UnlearnBenchError) as caught:
        _run(SPEAKS.replace("JUNK", repr(JUNK[junk])), small_split, tmp_path)
    assert "\n" not in str(caught.value)
    assert "seed 1 of mine" in str(caught.value)
    assert "unexpected" not in str(caught.value)


ASKS = """
    def train(self, loop):
        import numpy as np
        from unlearnbench.training.judge import Draw
        item = self.run.items[0]
        ids = loop.models.policy.encode_completion("1>" + chr(92) + "boxed{5}")
        draw = Draw(item.item_id, "policy", 5, 0, [ids], [TEXT], [True])
        for step in (0, 0):
            loop.judge.verdicts(step, 0, [draw])
"""


ASKED = {
    "twice": ("loop.models.policy.decode(ids)", "a rollout is judged once"),
    "another text": ("'another'", "is not what its tokens say"),
}


@pytest.mark.slow  # tests/test_judge.py has more, without processes
@pytest.mark.parametrize("asked", ASKED)
def test_a_verdict_is_given_once_and_for_what_was_drawn(asked: str, small_split: Split, tmp_path: Path) -> None:
    text, message = ASKED[asked]
    with pytest.raises(MethodError, match=message):
        _run(ASKS.replace("TEXT", text), small_split, tmp_path)


HIDES = """
    def train(self, loop):
        loop.judge.ask("labels")
        loop.judge.ask("answer", self.run.items[0].item_id)
"""


@pytest.fixture(scope="module")
def hidden(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The run of a method that asks past the contract, and saves another tokenizer and other settings."""
    folder = tmp_path_factory.mktemp("hidden")
    return folder, _run(HIDES + SWAPS.replace("CHANGE", "pass").replace(TRAIN, ""), small_split, folder)


def test_what_is_asked_past_the_contract_is_noted(hidden: tuple[Path, Result]) -> None:
    _, result = hidden
    assert result.method.track == "labels"
    assert list(result.method.reads) == ["answer", "labels"]


def test_tokenizer_and_settings_come_from_the_split(hidden: tuple[Path, Result], small_split: Split) -> None:
    base = small_split.policy_path
    assert isinstance(base, Path)
    for name in ("tokenizer.json", "generation_config.json", "config.json"):
        assert (hidden[0] / "run/1/checkpoint" / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.slow
def test_an_edit_during_the_run_changes_no_later_seed(small_split: Split, tmp_path: Path) -> None:
    """The file is changed by somebody else while seed 1 trains; seed 2 runs what the run began with."""
    file = tmp_path / "mine.py"
    source = "import unlearnbench as ub\n\nclass Mine(ub.Method):\n    def train(self, loop):\n        pass\n"
    file.write_text(source)

    def edit(event: object) -> None:
        file.write_text("raise SystemExit('another source')")

    result = evaluate(
        str(file), small_split, 2, samples=2, out=tmp_path / "run", compute=Compute(workers=1), progress=edit
    )
    assert file.read_text() != source
    kept = [(tmp_path / f"run/{seed}/method.py").read_text() for seed in (1, 2)]
    assert kept == [source, source]
    assert list(result.seeds) == [1, 2]


def test_no_process_outlives_the_command(small_split: Split, tmp_path: Path) -> None:
    """kill -9 of the command while a method waits in a child of its own."""
    body = "    def setup(self):\n        import subprocess, time\n        subprocess.run(['sleep', '98765'])\n"
    file = tmp_path / "mine.py"
    file.write_text("import unlearnbench as ub\n\nclass Mine(ub.Method):\n" + body)
    where = f"{str(file)!r}, {str(small_split.path)!r}, quick=True, out={str(tmp_path / 'run')!r}"
    code = f"import unlearnbench as ub; ub.evaluate({where})"
    command = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    until = time.monotonic() + 60
    while not _sleeping() and time.monotonic() < until:
        time.sleep(0.1)
    assert _sleeping()
    os.kill(command.pid, signal.SIGKILL)
    command.wait()
    until = time.monotonic() + 10
    while _sleeping() and time.monotonic() < until:
        time.sleep(0.1)
    assert not _sleeping()


def _sleeping() -> bool:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return any(re.search(rb"sleep\x0098765", line) for line in found)
