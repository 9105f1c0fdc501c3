"""The cache of verdicts: in memory up to a bound, in a file that processes share, never a wrong verdict."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from unlearnbench.errors import DataError, RunError
from unlearnbench.records import Verdict
from unlearnbench.verifier import Verifier
from unlearnbench.verifier import cache as cache_module
from unlearnbench.verifier.cache import VerdictCache

RIGHT = Verdict(True, "a", "match", "strict", 0.25)
WRONG = Verdict(False, "a", "mismatch", "strict", 0.5)


def never() -> Verdict:
    raise AssertionError("it is known already")


def test_the_longest_unused_verdicts_make_room() -> None:
    cache = VerdictCache("strict", memory=3 * (200 + 4))
    for gold in "123":
        cache.put(gold, "ans", RIGHT)
    assert cache.get("1", "ans") is RIGHT
    cache.put("4", "ans", WRONG)
    assert [cache.get(gold, "ans") for gold in "1234"] == [RIGHT, None, RIGHT, WRONG]
    cache.put("5", "x" * 5000, RIGHT)
    assert len(cache) == 0  # what is larger than all of it is not held, and the rest had to go for it
    for _ in range(10):
        cache.put("6", "ans", RIGHT)  # the same again takes no more room
    cache.put("7", "ans", RIGHT)
    assert len(cache) == 2


def test_what_several_threads_ask_at_once_is_judged_once() -> None:
    cache = VerdictCache("strict")
    asked, started, release = [], threading.Event(), threading.Event()

    def judge() -> Verdict:
        asked.append(threading.get_ident())
        started.set()
        assert release.wait(10)
        return RIGHT

    found: list[Verdict] = []
    threads = [threading.Thread(target=lambda: found.append(cache.once("g", "a", judge))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    assert cache.once("another", "a", lambda: WRONG) is WRONG  # others do not wait
    release.set()
    for thread in threads:
        thread.join()
    assert found == [RIGHT] * 8
    assert len(asked) == 1


def test_a_failure_is_not_kept_and_those_who_wait_judge_themselves(tmp_path: Path) -> None:
    cache = VerdictCache("strict", tmp_path / "cache")
    failed = Verdict(None, "a", "verifier_error", "strict")
    assert cache.once("g", "a", lambda: failed) is failed
    with pytest.raises(KeyboardInterrupt):
        cache.once("g", "a", _interrupted)
    assert cache.once("g", "a", lambda: RIGHT) is RIGHT
    late = Verdict(False, "a", "timeout", "strict", 4.0)
    assert cache.once("slow", "a", lambda: late) is late
    assert cache.once("slow", "a", never) is late  # in this process
    with pytest.raises(AssertionError):
        VerdictCache("strict", tmp_path / "cache").once("slow", "a", never)  # a quieter machine may find it in time


def _interrupted() -> Verdict:
    raise KeyboardInterrupt


@pytest.mark.parametrize("answer", ["1", "", "\0", "\ud800", "\udcff\0é", "x" * 40_000])
def test_a_file_keeps_verdicts_on_any_text_for_the_same_rule_and_verifier(
    tmp_path: Path, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "cache"
    verdict = Verdict(True, answer, "match", "strict", 0.125)
    with_gold = f"g{answer}"
    VerdictCache("strict", path).once(with_gold, answer, lambda: verdict)
    assert VerdictCache("strict", path).once(with_gold, answer, never) == verdict
    for gold, other in ((answer, with_gold), (with_gold + "1", answer[1:])):
        assert VerdictCache("strict", path).once(gold, other, lambda: WRONG) is WRONG
    assert VerdictCache("lenient", path).once(with_gold, answer, lambda: WRONG) is WRONG
    monkeypatch.setattr(cache_module, "VERIFIER_VERSION", "another")
    assert VerdictCache("strict", path).once(with_gold, answer, lambda: WRONG) is WRONG


def test_a_file_holds_no_text(tmp_path: Path) -> None:
    cache = VerdictCache("strict", tmp_path / "cache")
    cache.once("thegold", "theanswer", lambda: Verdict(True, "theanswer", "match", "strict", 1.0))
    cache.close()
    for path in tmp_path.iterdir():
        assert b"thegold" not in path.read_bytes() and b"theanswer" not in path.read_bytes()


def test_processes_share_a_file(tmp_path: Path) -> None:
    code = """
import sys
from unlearnbench.records import Verdict
from unlearnbench.verifier.cache import VerdictCache
cache = VerdictCache("strict", "cache")
sys.stdin.read(1)
for k in range(int(sys.argv[1]), int(sys.argv[1]) + 200):
    cache.once(str(k), "a", lambda: Verdict(k % 2 == 0, "a", "match" if k % 2 == 0 else "mismatch", "strict", k / 8))
"""
    call = [sys.executable, "-c", code]
    both = [subprocess.Popen([*call, first], cwd=tmp_path, stdin=subprocess.PIPE) for first in ("0", "100")]
    for process in both:
        process.communicate(b"go")
        assert process.returncode == 0
    cache = VerdictCache("strict", tmp_path / "cache")
    found = [cache.once(str(k), "a", never) for k in range(300)]
    assert [(verdict.correct, verdict.seconds) for verdict in found] == [(k % 2 == 0, k / 8) for k in range(300)]


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"notes\n" * 1000)
    with sqlite3.connect(tmp_path / "theirs") as theirs:
        theirs.execute("CREATE TABLE verdicts (digest, verdict, checksum)")
    theirs.close()
    before = [(tmp_path / name).read_bytes() for name in ("text", "theirs")]
    for name in ("text", "theirs"):
        with pytest.raises(DataError, match=f"{name} is not a cache of verdicts"):
            VerdictCache("strict", tmp_path / name)
    with pytest.raises(RunError, match="cannot be opened or written"):
        VerdictCache("strict", tmp_path)
    assert [(tmp_path / name).read_bytes() for name in ("text", "theirs")] == before


def test_a_damaged_file_never_gives_a_wrong_verdict(tmp_path: Path) -> None:
    """Bytes are overwritten somewhere: what is found is right, or it is judged again, or the file is refused."""
    path, ends = tmp_path / "cache", Counter[str]()
    reasons = ("match", "mismatch")
    verdicts = [Verdict(k % 2 == 0, "a", reasons[k % 2], "strict", k / 8) for k in range(60)]  # type: ignore[arg-type]

    def found(cache: VerdictCache) -> int:
        """How many had to be judged."""
        judged = []
        for k, verdict in enumerate(verdicts):
            assert cache.once(str(k), "a", lambda k=k: judged.append(k) or verdicts[k]) == verdict  # type: ignore[misc, func-returns-value]
        cache.close()
        return len(judged)

    assert found(VerdictCache("strict", path)) == 60
    assert found(VerdictCache("strict", path)) == 0
    whole = path.read_bytes()
    for seed in range(30):
        rng, data = random.Random(seed), bytearray(whole if seed % 5 else whole[: len(whole) // 2])
        for _ in range(seed + 1):
            place = rng.randrange(100 if seed % 3 else 4096, len(data) - 64)
            data[place : place + 64] = rng.randbytes(64)
        path.write_bytes(data)
        try:
            ends["judged" if found(VerdictCache("strict", path)) else "nothing lost"] += 1
        except DataError as error:
            assert "not a cache of verdicts" in str(error)
            assert path.read_bytes() == data
            ends["refused"] += 1
        for left in tmp_path.glob("cache-*"):
            left.unlink()
    assert ends["refused"] > 3 and ends["judged"] > 3


def test_a_verifier_finds_in_its_file_what_another_judged(tmp_path: Path) -> None:
    pairs = [("\\sqrt{x^2+1}+x", f"\\boxed{{x+\\sqrt{{{k}+x^2}}}}") for k in (1, 2)]
    with Verifier(cache=tmp_path / "cache", time_limit=20.0) as one:
        first = one.verify_many(pairs)
    with Verifier(cache=tmp_path / "cache", time_limit=20.0) as other:
        assert [other.verify(*pair) for pair in pairs] == first  # seconds too
    assert [verdict.correct for verdict in first] == [True, False]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_opens_the_file_itself(tmp_path: Path) -> None:
    cache = VerdictCache("strict", tmp_path / "cache")
    cache.once("parent", "a", lambda: RIGHT)
    child = os.fork()
    if child == 0:
        cache.after_fork()
        cache.once("child", "a", lambda: WRONG)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cache.once("child", "a", never) == WRONG
    assert VerdictCache("strict", tmp_path / "cache").once("parent", "a", never) == RIGHT
