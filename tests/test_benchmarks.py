"""The benchmarks: both sides of a comparison do the same work, and what is made of the clock's readings is right."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import grpo, memory, run, start
from benchmarks.grpo import ready
from benchmarks.measurement import Side, Target, high_water, in_fresh_process, table, take_turns, target_table
from unlearnbench.io.child import command
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier

pytestmark = pytest.mark.checkout

ROOT = Path(__file__).resolve().parents[1]
STEPS = 1


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the benchmarks run; with more, processes that share a core stall one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_our_steps_are_counted_as_the_budget_counts_them(small_split: Split, tmp_path: Path) -> None:
    work = grpo.run(small_split, tmp_path / "run", "test", STEPS, drop=False)
    recipe = small_split.config.recipe
    assert work.steps == STEPS + grpo.WARM_UP
    assert [len(prompts) for prompts in work.prompts] == [recipe.prompts_per_step] * work.steps
    assert work.rollouts == work.steps * recipe.prompts_per_step * recipe.group_size
    assert work.updates == work.steps * recipe.updates_per_batch
    assert work.step > 0

    with grpo.training_of(small_split, tmp_path / "same", "test", work.steps, drop=False) as same:
        same.run()
    assert sum(work.flops(same.models.policy.parameters).values()) * work.steps == pytest.approx(same.meter.flops)


def test_a_policy_with_random_weights_is_trained_from_the_items_of_micro(micro: Split, tmp_path: Path) -> None:
    from benchmarks import grpo, random_policies

    split = random_policies.split_of("tiny", tmp_path / "split", prompts_per_step=2, max_tokens=9, updates_per_batch=1)
    assert [item.item_id for item in split.items] == [item.item_id for item in micro.items]
    assert 1000 * 64 < split.config.base_policy.parameters < 200_000
    work = grpo.run(split, tmp_path / "run", "test", STEPS, drop=False)
    assert work.rollouts == work.steps * 2 * 8
    assert work.generated > 0.9 * 9 * work.rollouts  # nothing but chance ends them
    assert work.updates == work.steps


@pytest.mark.slow
def test_empty_shards_are_shared_out_and_timed() -> None:
    from benchmarks import executor

    timed = executor.once(executor.Local(), 2, 7)
    assert 0 < timed.first <= timed.total


@pytest.mark.filterwarnings("ignore")
def test_the_gpu_script_compares_numbers_and_counts_both_kinds_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    found = {name: gpu.check("tiny", name, gpu.TRY) for name in ("float32", "bf16")}
    assert found["float32"]["difference"] == 0
    assert 0 < found["bf16"]["difference"] < gpu.LIMITS["bf16"] and found["bf16"]["cosine"] > gpu.LEAST_COSINE["bf16"]
    ours = gpu.steps("tiny", "unlearnbench", gpu.TRY)
    assert ours["sampled"] > 0 and ours["trained"] > 0 and 0 < ours["peak_gib"] < 10
    rows = gpu._table({"check: tiny": found["bf16"], "tiny: unlearnbench": ours, "tiny: TRL": {"why": "no TRL"}})
    assert len(rows.splitlines()) == 5 and "no TRL" in rows
    monkeypatch.setitem(gpu.LIMITS, "bf16", 0.0)
    with pytest.raises(SystemExit, match="would mean nothing"):
        gpu.check("tiny", "bf16", gpu.TRY)


def test_a_timed_step_does_not_start_the_verifiers_worker() -> None:
    with Verifier() as verifier:
        ready(verifier)
        assert len(verifier._live) == 1


def test_dropping_dead_groups_spares_training_but_no_rollout(small_split: Split, tmp_path: Path) -> None:
    kept, dropped = (grpo.run(small_split, tmp_path / str(drop), "test", STEPS, drop=drop) for drop in (False, True))
    assert dropped.prompts == kept.prompts
    assert dropped.rollouts == kept.rollouts
    assert 0 < dropped.trained < kept.trained


@pytest.mark.filterwarnings("ignore")
def test_trl_does_the_same_work(small_split: Split, tmp_path: Path) -> None:
    """Same prompts in the same steps, as many rollouts and updates, and all of their tokens trained on."""
    pytest.importorskip("trl", reason="TRL is in the environment of `make bench`")
    from benchmarks import grpo_trl

    ours = grpo.run(small_split, tmp_path / "ours", "test", STEPS, drop=False)
    with grpo.training_of(small_split, tmp_path / "schedule", "test", ours.steps, drop=False) as training:
        scheduled = grpo.schedule(training, small_split, ours.steps)
    theirs = grpo_trl.run(small_split, tmp_path / "theirs", scheduled, seed=1)
    assert theirs.prompts == ours.prompts
    assert (theirs.steps, theirs.rollouts, theirs.updates) == (ours.steps, ours.rollouts, ours.updates)
    for work in (ours, theirs):  # every rollout is trained on once, prompt and completion
        group = small_split.config.recipe.group_size
        assert work.trained == work.generated + group * sum(len(p) for step in work.prompts for p in step)
    assert theirs.forward == 2 * theirs.trained  # old policy and reference
    assert ours.forward == ours.trained  # reference


@pytest.mark.filterwarnings("ignore")
def test_both_evaluations_draw_the_same_number_of_rollouts(small_split: Split, tmp_path: Path) -> None:
    from benchmarks.sampling import LmEval, Ours

    items = small_split.items[:4]  # easy ones: nearly always right, so that the two judges must agree, too
    ours = Ours(small_split, items, samples=8).once(0)
    assert ours.rollouts == 32
    assert ours.correct > 0.7
    pytest.importorskip("lm_eval", reason="lm-eval is in the environment of `make bench`")
    theirs = LmEval(small_split, items, 8, 16, tmp_path).once(0)
    assert theirs.rollouts == 32
    assert theirs.correct > 0.7


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["random", "micro"])
def test_all_methods_make_the_same_vectors(kind: str) -> None:
    """Rollouts of several lengths, and on micro equal ones; the prompt is shared by ours alone."""
    from benchmarks import gradient_methods

    model, items = gradient_methods.workload(kind, 2)
    if kind == "random":
        short = [[text[: 5 + k] for k, text in enumerate(item.responses[:8])] for item in items]
        items = [replace(item, responses=tuple(texts)) for item, texts in zip(items, short, strict=True)]
    else:
        assert gradient_methods.distinct(items) < 2 * gradient_methods.ROLLOUTS
    made = {name: method(model)(items) for name, method in gradient_methods.METHODS.items()}
    expected = made[gradient_methods.OURS]
    assert expected.shape[0] == 2 and (abs(expected).max(1) > 1e-4).all()
    for name, vectors in made.items():
        assert abs(vectors - expected).max() < 1e-5 * abs(expected).max(), name


def test_the_floor_is_what_the_layers_are_known_to_need() -> None:
    """By hand: a prompt of 3 tokens and twice the same response of 2, of which one is read."""
    from benchmarks import gradient_methods as work
    from unlearnbench.policies.packing import ItemRollouts

    hidden, inner, key = work.HIDDEN, work.INNER, work.HIDDEN * work.KEY_HEADS // work.HEADS
    layer = 2 * hidden * hidden + 2 * hidden * key + 3 * hidden * inner
    read = hidden * hidden + 2 * hidden * key  # of the first layer's input
    tokens = 2 * (2 * work.LAYERS * layer - read) + 2 * work.LAYERS * 16 * (3 * hidden + key)
    seen = 12 * work.LAYERS * hidden
    head = 4 * hidden * work.VOCABULARY
    items = [ItemRollouts("a", (1, 2, 3), ((4, 5), (4, 5)))]
    assert work.products(work.random_model(), items) == 4 * tokens + (1 + 2 + 3 + 4) * seen + 2 * head


def test_the_hard_pairs_are_what_they_are_called() -> None:
    """By their values at two points, found by sympy from the text: the right form is equal, the wrong one is not."""
    from math_verify import parse

    from benchmarks import verify

    def value(text: str, x: float) -> complex:
        expression = parse(f"${text}$")[0]
        return complex(expression.subs(dict.fromkeys(expression.free_symbols, x)).evalf())

    pairs = verify.hard()
    assert len(pairs) >= 60 and len({pair.gold for pair in pairs}) == len(pairs)
    assert len({pair.kind for pair in pairs}) == 5
    for pair in pairs:
        for x in (9.7, 12.3):
            gold = value(pair.gold, x)
            assert value(pair.right, x) == pytest.approx(gold, rel=1e-9), pair
            assert value(pair.wrong, x) != pytest.approx(gold, rel=1e-3), pair


def test_both_verifiers_judge_the_same_rows(tmp_path: Path) -> None:
    from benchmarks import verify

    assert verify.write_rollouts(tmp_path / "rows.jsonl", 200, None) > 100
    theirs = in_fresh_process(verify.theirs_on_rows, tmp_path / "rows.jsonl", 200)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    ours = verify.ours_on([(row["gold"], row["completion"]) for row in rows])
    assert (ours.accepted, ours.refused, ours.unanswered) == (theirs.accepted, theirs.refused, theirs.unanswered)
    assert 40 < ours.accepted < 200


def test_sides_take_turns_and_medians_are_compared_with_what_was_promised() -> None:
    order: list[str] = []

    def side(name: str, values: list[float]) -> Side:
        def once(turn: int) -> float:
            order.append(name)
            return values[turn]

        return Side(name, once)

    one, other = side("one", [1.0, 9.0, 2.0]), side("other", [6.0, 5.0, 7.0])
    take_turns([one, other], 3)
    assert order == ["one", "other"] * 3
    assert (one.median, other.median) == (2.0, 6.0)
    lines = target_table(
        [Target("fast", 3.0, 3), Target("slow", 2.9, 3), Target("small", 2.9, 3, at_most=True)]
    ).splitlines()
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["yes", "NO", "yes"]


def test_a_table_is_markdown() -> None:
    assert table(["what", "s"], [["a", "1.5"], ["longer", "2"]]).splitlines() == [
        "| what   |   s |",
        "| ------ | --: |",
        "| a      | 1.5 |",
        "| longer |   2 |",
    ]


def test_the_time_of_an_inner_call_is_not_its_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    second = 0.0
    monkeypatch.setattr(grpo, "now", lambda: second)

    class Work:
        def outer(self) -> str:
            nonlocal second
            second += 1
            self.inner()
            self.inner()
            second += 2
            return "done"

        def inner(self) -> None:
            nonlocal second
            second += 10

    work, clock = Work(), grpo.Phases()
    with clock.timing(work, "outer", "outside"), clock.timing(work, "inner", lambda: "inside"):
        assert work.outer() == "done"
    assert clock.seconds == {"outside": 3, "inside": 20}
    work.outer()
    assert clock.seconds == {"outside": 3, "inside": 20}  # undone


def test_stages_that_run_side_by_side_share_the_time_on_the_wall(tmp_path: Path) -> None:
    watch = start.Watch(tmp_path)
    when = {
        ".venv/.runtime": 100.0,
        "runs/micro/a/1/log.txt": 103.0,
        "runs/micro/a/2/log.txt": 103.0,
        "runs/micro/a/1/environment.json": 113.0,
        "runs/micro/a/2/environment.json": 115.0,
        **{f"runs/micro/a/1/evaluation/{name}.parquet": 117.0 for name in start.EVALUATION},
        **{f"runs/micro/a/2/evaluation/{name}.parquet": 121.0 for name in start.EVALUATION},
    }
    for second in sorted(set(when.values())):
        for name in [name for name, seen in when.items() if seen == second]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        watch.look(second)
    seconds = start.shares(watch.spans(122.0))
    assert list(seconds.values()) == [100.0, 3.0, 11.0, 7.0, 1.0]  # from 113 to 115 half of each
    assert sum(seconds.values()) == 122.0


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from /proc")
def test_workers_and_their_peaks_are_found(tmp_path: Path) -> None:
    started = command("unlearnbench.workers.worker:exit_with_main")
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path) as worker:
        try:
            deadline = time.monotonic() + 10  # its command line is empty until it has replaced its parent's program
            while not memory.workers_of(os.getpid()) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert memory.workers_of(os.getpid()) == [worker.pid]
            assert high_water(worker.pid) > 100  # KiB
        finally:
            worker.kill()
    assert high_water(worker.pid) == 0
    assert memory.workers_of(os.getpid()) == []


def test_the_page_has_a_place_for_every_benchmark() -> None:
    page = (ROOT / "docs/results/benchmarks.md").read_text(encoding="utf-8")
    for name, (module, *_) in run.ALL.items():
        assert (ROOT / "benchmarks" / f"{module}.py").is_file()
        assert f"new {name}" in run.replaced(page, name, f"new {name}")
    assert (
        run.replaced("a\n<!-- x -->\nold\n<!-- /x -->\nb\n", "x", "new") == "a\n<!-- x -->\n\nnew\n\n<!-- /x -->\nb\n"
    )
    with pytest.raises(SystemExit, match="no place for y"):
        run.replaced("a", "y", "new")
