"""An edition of a small board from end to end: closed, trained again, killed (kill -9) on the way, resumed, shown.

    python .ci/retrain.py

Real commands on a small split around the policy of micro, in a repository of its own. Ends with status 1 where the seed
is not that of the commit, a process outlives the command that began it, an entry that is there is made again, the
entries are not shown first, or the board needs the variant's folder. Two minutes of one core.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from orphans import descendants, still_running

from unlearnbench.leaderboard.editions import round_after
from unlearnbench.splits import Split, find_split, load_split, write_split

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("no_training-1x", "positive_only-1x")
WHO = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
WHEN = 1_750_000_000
"""When the entries are committed: the beacon's round that follows is long published."""
VALUE = "0123456789abcdef" * 4


def small(folder: Path, seed: int) -> Split:
    """Some items of micro under the name of a variant, with a recipe of six steps."""
    micro = load_split("micro")
    shutil.copytree(find_split("micro") / "policy", folder / "policy")
    items = [item for group in ("easy", "unlearnable") for item in micro.items if item.group == group]
    items = [*items[:12], *items[-12:]]
    ids = pa.array([item.item_id for item in items])
    recipe = micro.config.recipe.model_copy(update={"steps": 6})
    counts = micro.counts()
    changes = {"name": f"micro-{seed}", "seed": seed, "files": {}, "recipe": recipe, "budget": None}
    return write_split(
        folder,
        micro.config.model_copy(update=changes),
        items,
        counts=counts.filter(pc.is_in(counts["item_id"], ids)),
    )


def call(*words: str, cwd: Path) -> str:
    """What a command prints; one that fails ends the script."""
    dated = os.environ | {"GIT_COMMITTER_DATE": f"{WHEN} +0000", "GIT_AUTHOR_DATE": f"{WHEN} +0000"}
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False, env=dated)
    if done.returncode:
        sys.exit(f"{' '.join(words)} ended with status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def require(true: bool, what: str) -> None:
    if not true:
        sys.exit(f"not so: {what}")


def killed(words: list[str], repo: Path, run: Path) -> None:
    """Begin `words`, kill it while it trains, and see that nothing of it is left."""
    process = subprocess.Popen(words, cwd=repo, stdout=subprocess.DEVNULL)
    while not list(run.glob("*/metrics.jsonl")):
        require(process.poll() is None, "the command is still training")
        time.sleep(0.2)
    started = descendants(process.pid)
    process.kill()
    process.wait()
    require(len(started) > 0 and not still_running(started, patience=20), "nothing outlives the command")


def main() -> None:
    began, python = time.monotonic(), [sys.executable, "-m", "unlearnbench"]
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        entries = repo / "leaderboard" / "entries"
        for name in METHODS:
            home = ROOT / "leaderboard" / "entries" / name
            shutil.copytree(home / "open", entries / name / "open")
            for source in home.glob("*.py"):
                shutil.copy(source, entries / name)
        known = json.loads((ROOT / "leaderboard" / "editions.json").read_text())
        kept = [edition for edition in known if edition["name"] == "open"]
        (repo / "leaderboard" / "editions.json").write_text(json.dumps(kept))
        shutil.copytree(ROOT / "leaderboard" / "editions" / "open", repo / "leaderboard" / "editions" / "open")
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "entries"]):
            call("git", *WHO, *words, cwd=repo)
        commit = call("git", "rev-parse", "HEAD", cwd=repo)
        round_ = round_after(WHEN)
        require(
            f"--beacon {round_}:VALUE" in call(*python, "leaderboard", "close", "try", cwd=repo), "a round is named"
        )
        seed = int.from_bytes(sha256(f"try/{commit}/{round_}/{VALUE}".encode()).digest()[:4], "big") % 2**31
        close = [*python, "leaderboard", "close", "try", "--beacon", f"{round_}:{VALUE}"]
        require(f"make micro SEED={seed}" in call(*close, cwd=repo), "the seed drawn")

        split = small(Path(folder) / f"micro-{seed}", seed)
        null = split.path / "null_control" / "1x"
        call(*python, "eval", "--method", "grpo", "--split", str(split.path), "--out", str(null), cwd=repo)
        shutil.copytree(null, split.path / "tuned_null" / "1")
        call(*close, "--split", str(split.path), cwd=repo)

        shutil.rmtree(split.path)  # what the board keeps of it is enough, to train and to show
        again = [*python, "leaderboard", "retrain", "--edition", "try", "--json"]
        killed(again, repo, repo / "build" / "editions" / "try" / "positive_only-1x" / "run")
        told = [json.loads(line) for line in call(*again, cwd=repo).splitlines()]
        require(
            [(row["id"], row["before"]) for row in told] == list(zip(METHODS, (True, False), strict=True)), "resumed"
        )
        sizes = [sum(file.stat().st_size for file in (entries / row["id"] / "try").iterdir()) for row in told]
        require(max(sizes) < 150_000, "an entry is small")

        rows = json.loads(call(*python, "leaderboard", "standings", "--json", cwd=repo))
        first = [(row["entry"]["tier"], row["entry"]["edition"]) for row in rows[: len(METHODS)]]
        require(first == [("re-trained", "try")] * len(METHODS), "the re-trained tier is shown first")
        moved = json.loads(call(*python, "leaderboard", "rescore", "--json", cwd=repo))
        require(not any(row["moved"] for row in moved), "answers give the ranks again")
        call(*python, "leaderboard", "build", "--out", "site", cwd=repo)
        print(f"an edition closed, trained again and shown: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
