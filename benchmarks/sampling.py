"""Evaluation rollouts per second: unlearnbench's `measure` against lm-eval-harness with its hf backend.

    python -m benchmarks.sampling [--repeats 5] [--items 1100] [--samples 32]
    python -m benchmarks.sampling --policy 106m --items 32 --samples 8 [--vllm .venv-vllm/bin/python]

The same policy, the items of `micro`, temperature 0.7, top-p 0.95, at most 20 tokens (48 of a policy of 106 M
parameters), one thread. All sides encode prompts, sample, decode and grade: ours with the verifier, lm-eval with a
regular expression for the last \\boxed{...} and exact match. lm-eval runs at the batch size that was its best in a
warm-up. `--vllm` adds `measure` with the vLLM sampler, in a process of the environment where vLLM is installed. Loading
the policy and reading the task are counted on no side.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measurement import (
    Side,
    Target,
    described,
    now,
    one_thread,
    peak_flops,
    progress,
    require,
    table,
    take_turns,
    target_table,
)

if TYPE_CHECKING:
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.records import Item
    from unlearnbench.splits import Split

BATCH_SIZES = (64, 128, 256, 512, 1024, 2048)
WARM_UP_ITEMS = 128
MAX_TOKENS = 48
"""Of a rollout of a language model's size."""
OURS, LM_EVAL, VLLM = "unlearnbench", "lm-eval-harness, hf backend", "unlearnbench, vLLM's sampler"


@dataclass(frozen=True)
class Measured:
    """What one evaluation did. `tokens` counts completions with their end token; None if unknown."""

    seconds: float
    rollouts: int
    correct: float  # share
    tokens: int | None = None

    @property
    def rate(self) -> float:
        """Rollouts per second."""
        return self.rollouts / self.seconds


class Ours:
    """`unlearnbench.workers.measure` with the policy in this process, as an evaluation's worker calls it."""

    def __init__(self, split: Split, items: Sequence[Item], samples: int, engine: Engine | None = None) -> None:
        from unlearnbench.policies.policy import load_policy
        from unlearnbench.policies.samplers.engine import TRANSFORMERS
        from unlearnbench.workers.measure import Problem

        self.split, self.samples = split, samples
        self.policy = load_policy(split.policy_path)
        self.sampler = (engine or TRANSFORMERS).sampler(self.policy, training=False)
        self.problems = [Problem(item.item_id, item.prompt, item.answer) for item in items]

    def once(self, turn: int) -> Measured:
        import pyarrow.compute as pc

        from benchmarks.grpo import ready
        from unlearnbench.verifier import Verifier
        from unlearnbench.workers.measure import measure

        protocol = self.split.config.protocol
        with Verifier(rule=protocol.verifier_rule) as verifier:
            ready(verifier)
            began = now()
            rows = measure(
                self.problems,
                self.samples,
                policy=self.policy,
                sampler=self.sampler,
                verifier=verifier,
                sampling=protocol.sampling,
                root=f"benchmarks/sampling/{turn}",
            )
            seconds = now() - began
        tokens = int(pc.sum(pc.list_value_length(rows["token_ids"])).as_py())
        return Measured(seconds, rows.num_rows, float(pc.mean(rows["correct"]).as_py()), tokens)


class Vllm:
    """The same with vLLM's sampler, in a fresh process of another environment: its Python interpreter."""

    def __init__(self, python: Path, split: Split, items: int, samples: int) -> None:
        self.command = [str(python), "-m", "benchmarks.sampling", "--inside-vllm", str(split.path)]
        self.command += ["--items", str(items), "--samples", str(samples)]

    def once(self, turn: int) -> Measured:
        """Raises SystemExit with the end of what it printed if the process fails."""
        done = subprocess.run(self.command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"vLLM's process failed: {done.stderr.strip()[-500:]}")
        return Measured(**json.loads(done.stdout.splitlines()[-1]))


class LmEval:
    """A local generate_until task with `samples` repeats of every item, on lm-eval's hf backend."""

    def __init__(self, split: Split, items: Sequence[Item], samples: int, batch_size: int, folder: Path) -> None:
        from lm_eval.models.huggingface import HFLM

        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"prompt": item.prompt, "answer": item.answer}) for item in items]
        (folder / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.samples, self.folder = samples, folder
        self.sampling = split.config.protocol.sampling
        self.model = HFLM(pretrained=str(split.policy_path), dtype="float32", device="cpu", batch_size=batch_size)

    def task(self) -> Any:
        from lm_eval.api.task import ConfigurableTask

        class Micro(ConfigurableTask):  # type: ignore[misc]
            VERSION = 1

        return Micro(
            config={
                "task": "micro",
                "dataset_path": "json",
                "dataset_kwargs": {
                    "data_files": {"test": str(self.folder / "items.jsonl")},
                    "cache_dir": str(self.folder / "cache"),
                },
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_text": "{{prompt}}",
                "doc_to_target": "{{answer}}",
                "generation_kwargs": {
                    "until": [],  # lm-eval adds the end token by itself
                    "do_sample": True,
                    "temperature": self.sampling.temperature,
                    "top_p": self.sampling.top_p,
                    "top_k": 0,  # the default 50 would exclude one of 51 tokens and cost time
                    "max_gen_toks": self.sampling.max_tokens,
                },
                "repeats": self.samples,
                "filter_list": [
                    {
                        "name": "boxed",
                        "filter": [
                            {"function": "regex", "regex_pattern": r"\\boxed\{([^}]*)\}", "group_select": -1},
                            {"function": "take_first_k", "k": self.samples},
                        ],
                    }
                ],
                "process_results": _share_correct,
                "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
                "num_fewshot": 0,
            }
        )

    def once(self, turn: int) -> Measured:
        import torch
        from lm_eval.evaluator import evaluate

        torch.manual_seed(turn)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            task = self.task()
            tasks = {"tasks": {"micro": task}, "groups": {}}
            began = now()
            results = evaluate(self.model, tasks, bootstrap_iters=0, log_samples=False)
            seconds = now() - began
        drawn = sum(len(instance.resps) for instance in task.instances)
        return Measured(seconds, drawn, float(results["results"]["micro"]["exact_match,boxed"]))


def _share_correct(doc: dict[str, str], results: list[list[str]]) -> dict[str, float]:
    """lm-eval's exact match over all repeats of an item."""
    (answers,) = results
    return {"exact_match": sum(answer == doc["answer"] for answer in answers) / len(answers)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time evaluation rollouts against lm-eval-harness.")
    parser.add_argument("--policy", choices=("micro", "106m"), default="micro", help="what is sampled (default micro)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--items", type=int, default=1100, help="items of micro, spread over all groups (default all)")
    parser.add_argument("--samples", type=int, default=32, help="rollouts per item (default 32)")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="the Python of an environment with vLLM")
    parser.add_argument("--inside-vllm", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    one_thread()
    if chosen.inside_vllm:
        _inside_vllm(chosen.inside_vllm, chosen.items, chosen.samples)
        return
    require("lm_eval")
    _quiet()
    with tempfile.TemporaryDirectory() as place:
        split = _split(chosen.policy, Path(place))
        _compare(split, chosen, Path(place))


def _split(policy: str, folder: Path) -> Split:
    from unlearnbench.splits import load_split

    if policy == "micro":
        return load_split("micro")
    from benchmarks.random_policies import split_of

    return split_of(policy, folder / "split", longest=MAX_TOKENS)


def _spread(split: Split, items: int) -> Sequence[Item]:
    stride = max(1, len(split.items) // max(1, items))
    return split.items[::stride][:items]


def _inside_vllm(folder: Path, items: int, samples: int) -> None:
    """One side of one turn, in its own process; what was measured goes to standard output."""
    from unlearnbench.policies.samplers.engine import Engine
    from unlearnbench.splits import Split

    split = Split(folder)
    chosen = _spread(split, items)
    Ours(split, chosen[:1], 1, engine := Engine("vllm")).once(0)
    print(json.dumps(asdict(Ours(split, chosen, samples, engine).once(1))))


def _compare(split: Split, chosen: argparse.Namespace, folder: Path) -> None:
    items = _spread(split, chosen.items)
    done: dict[str, list[Measured]] = {OURS: [], LM_EVAL: [], VLLM: []}
    peak = peak_flops()
    few = items[:: max(1, len(items) // WARM_UP_ITEMS)][:WARM_UP_ITEMS]
    rates: dict[int, float] = {}
    for size in BATCH_SIZES:
        if size > max(BATCH_SIZES[0], len(few) * chosen.samples):
            break
        progress(f"warm-up: lm-eval at batch size {size}")
        side = LmEval(split, few, chosen.samples, size, folder / str(size))
        rates[size] = max(side.once(turn).rate for turn in range(2))
    best = max(rates, key=lambda size: rates[size])
    ours, theirs = Ours(split, items, chosen.samples), LmEval(split, items, chosen.samples, best, folder / "all")
    Ours(split, few[:8], chosen.samples).once(0)
    compared: dict[str, Ours | LmEval | Vllm] = {OURS: ours, LM_EVAL: theirs}
    if chosen.vllm:
        compared[VLLM] = Vllm(chosen.vllm, split, chosen.items, chosen.samples)

    def once(name: str, turn: int) -> float:
        done[name].append(compared[name].once(turn))
        return done[name][-1].rate

    sides = [Side(name, partial(once, name)) for name in compared]
    take_turns(sides, chosen.repeats)
    peak = max(peak, peak_flops())

    print(f"{described('lm-eval', 'torch', 'transformers')}; one thread\n")
    print(
        f"Medians of {chosen.repeats} turns of {len(items):,} items x {chosen.samples} samples; lm-eval at batch size"
    )
    print(f"{best}, its best in a warm-up of {len(few)} items, two turns each:\n")
    print(table(["lm-eval's batch size", *(f"{size:,}" for size in rates)], [
        ["rollouts per second", *(f"{rate:,.1f}" for rate in rates.values())]
    ]))  # fmt: skip
    print()
    print(table(["evaluation", "rollouts per second", "least", "most", "rollouts", "correct"], [
        [
            side.name,
            *side.cells(",.1f"),
            f"{done[side.name][0].rollouts:,}",
            f"{100 * sum(one.correct for one in done[side.name]) / chosen.repeats:.1f} %",
        ]
        for side in sides
    ]))  # fmt: skip
    print()
    if chosen.policy == "micro":
        ratio = sides[0].median / sides[1].median
        print(target_table([Target("our rollouts per second over lm-eval's", ratio, 3)]))
    prompts = sum(len(item.prompt) for item in items)  # micro's tokenizer: a character is a token
    tokens = sum(one.tokens or 0 for one in done[OURS]) / chosen.repeats
    flops = 2 * ours.policy.parameters * (tokens + prompts) * sides[0].median / (len(items) * chosen.samples)
    print(f"\nAt 2 N FLOPs for each of {tokens:,.0f} tokens drawn and {prompts:,} of prompts, ours works at")
    print(
        f"{flops / 1e9:.0f} GFLOP/s, {100 * flops / peak:.0f} % of the {peak / 1e9:.0f} GFLOP/s that one core reaches"
    )
    print("in a large float32 matrix product. Rollouts of an item that begin alike share their computation, so fewer")
    print("FLOPs than these are done.")


def _quiet() -> None:
    """Silence warnings of lm-eval and its libraries about what is intended here (no few-shot examples, no version)."""
    from transformers.utils.logging import disable_progress_bar

    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    disable_progress_bar()


if __name__ == "__main__":
    main()
