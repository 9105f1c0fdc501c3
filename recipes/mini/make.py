"""Remake `mini` from a seed: problems, base policy, labels, controls.

    python -m recipes.mini.make            # writes splits/mini (seed 0, the shipped variant)
    python -m recipes.mini.make --seed 7   # writes build/mini-7, a sealed variant: other forms, items and labels

Every stage leaves files in build/, so a stopped run resumes. Same seed, same machine: the same labels, all of them.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from recipes.controls import Controls
from recipes.mini.base_policy import THREADS, Plan, exact, fit, make_model, make_tokenizer, save
from recipes.mini.problems import Problems, draw_chain, known_chain, make_problems
from recipes.mini.texts import Example, base_example, taught_example
from recipes.mini.world import World, make_world
from unlearnbench.cli.progress import Bars
from unlearnbench.curation.curate import curate
from unlearnbench.io import tables
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Canary, Item, PolicyRef, Pool, Protocol, Recipe, Samples, Sampling, SplitConfig, Twin
from unlearnbench.splits import Split, load_split, write_split
from unlearnbench.splits.cards import write_cards
from unlearnbench.verifier import Verifier
from unlearnbench.workers.jobs import Compute
from unlearnbench.workers.measure import Problem, counts_of, measure

ROOT = Path(__file__).resolve().parents[2]
BASE_CHUNKS, BASE_COSINE, BASE_COOLDOWN = 130, 180, 45  # of 2,000 examples
BASE_RATE = 2e-3
TAUGHT_CHUNKS = 100
TAUGHT_RATE = 1e-3
TOKENIZER_EXAMPLES = 20_000
WATCHED = 200  # held-out problems of each depth
SCREENED_ABOVE = 0.075
SCREEN_SAMPLES = 256
KEPT_OF_NEVER = 4  # one in so many of the items that no sample of the screening answers
NULL_SEEDS = 10
TUNED_SEEDS = 5
POSITIVE_SEEDS = 3
MAX_TOKENS = 120

PROTOCOL = Protocol(
    tau=0.1,
    runs=5,
    samples=Samples(base=512, after=256, certify=128, base_fresh=128, twins=128),
    sampling=Sampling(temperature=0.7, top_p=0.95, max_tokens=MAX_TOKENS),
    valid_trace="solution",
)
RECIPE = Recipe(
    steps=210,
    prompts_per_step=32,
    group_size=8,
    updates_per_batch=4,
    max_rounds=4,
    max_tokens=MAX_TOKENS,
    learning_rate=1e-4,
    weight_decay=0.0,
    kl=0.0,
    entropy=0.0,
    checkpoint_every=20,
)


def make(seed: int, out: Path, work: Path, workers: int | None) -> Split:
    """All stages; returns the finished split."""
    world = make_world(seed)
    problems = make_problems(world)
    pool = make_pool(world, problems, work)
    with Bars() as bars:
        split = curate(
            pool / "split.yaml",
            out,
            work=work / "curation",
            compute=Compute(workers=workers, patience=None),
            progress=bars.show,
        )
    controls = Controls(split.path, work, Compute(workers=workers))
    controls.null(NULL_SEEDS)
    taught = make_taught(world, problems, work, out / "positive_control" / "policy")
    controls.positive(POSITIVE_SEEDS, taught)
    controls.tuned(TUNED_SEEDS)
    return load_split(out)


def make_base(world: World, problems: Problems, work: Path) -> Path:
    """The base policy, pre-trained on text without any problem of the pool."""
    folder = work / "policy"
    if not (folder / "model.safetensors").is_file():
        tokenizer, held_out, watched = _tokenizer(world, problems.prompts), problems.prompts, _watched(world, problems)
        never = held_out | {prompt for examples in watched.values() for prompt, _ in examples}
        model = make_model(world.seed, len(tokenizer))

        def watch(trained: Any) -> str:
            shares = (f"{depth} deep {exact(trained, tokenizer, rows):.3f}" for depth, rows in watched.items())
            return f"exact {', '.join(shares)}"

        plan = Plan(
            "base policy",
            f"mini/base/{world.seed}",
            lambda draw: base_example(draw, world, never),
            BASE_CHUNKS,
            BASE_RATE,
            BASE_COSINE,
            BASE_COOLDOWN,
        )
        fit(model, tokenizer, plan, work / "base.state", watch)
        print(f"base policy: {watch(model)}", flush=True)
        publish(model, tokenizer, folder)
    return folder


def _tokenizer(world: World, held_out: frozenset[str]) -> Any:
    draw = random.Random(f"mini/tokenizer/{world.seed}")
    return make_tokenizer([base_example(draw, world, held_out) for _ in range(TOKENIZER_EXAMPLES)])


def _watched(world: World, problems: Problems) -> dict[int, list[Example]]:
    """Held-out chains of known schemas by depth, to watch the progress of training."""
    draw = random.Random(f"mini/held-out/{world.seed}")
    watched: dict[int, list[Example]] = {}
    for depth in (1, 2, 3, 4):
        rows: list[Example] = []
        while len(rows) < WATCHED:
            chain = draw_chain(draw, known_chain(draw, world, depth, seen=True))
            if chain is not None and chain.prompt not in problems.prompts:
                rows.append((chain.prompt, chain.solution))
        watched[depth] = rows
    return watched


def make_pool(world: World, problems: Problems, work: Path) -> Path:
    """The unlabelled split: problems, base policy and protocol."""
    folder = work / "pool"
    base = make_base(world, problems, work)
    shutil.copytree(base, folder / "policy", dirs_exist_ok=True)
    problems = screened(problems, base, world.seed)
    tables.write_records(folder / "items.parquet", problems.items, Item)
    tables.write_records(folder / "twins.parquet", problems.twins, Twin)
    tables.write_records(folder / "canaries.json", problems.canaries, Canary)
    config = SplitConfig(
        name="mini" if world.seed == 0 else f"mini-{world.seed}",
        description="English word problems, one to four steps deep, for a policy that was trained on little and partly "
        "wrong text.",
        seed=world.seed,
        base_policy=PolicyRef(path="policy"),
        pool=Pool(items="items.parquet", twins="twins.parquet", canaries="canaries.json"),
        protocol=PROTOCOL,
        recipe=RECIPE,
        provenance=f"generated by recipes/mini with seed {world.seed}; labels measured by `unlearnbench curate`",
        licence="Apache-2.0",
    )
    write_split(folder, config, list(problems.items))
    return folder


def screened(problems: Problems, policy: Path, seed: int) -> Problems:
    """The problems without most of those that would teach nothing, of causes other than `known`.

    Items that the base answers more often than SCREENED_ABOVE are near tau and would be called easy or not by chance.
    Of items that it never answers one in KEPT_OF_NEVER stays: GRPO gets no reward for them. Both are left out by
    samples that no label rests on; how often an item is *learned* plays no part. Canaries whose wrong gold the base
    ever draws are left out, too: they would show nothing.
    """
    torch.set_num_threads(THREADS)
    base = load_policy(policy)
    odd = [Problem(item.item_id, item.prompt, item.answer) for item in problems.items if item.cause != "known"]
    wrong = [Problem(canary.item_id, canary.prompt, canary.answer) for canary in problems.canaries]
    with Verifier() as verifier:
        rows = measure(
            [*odd, *wrong],
            SCREEN_SAMPLES,
            policy=base,
            sampler=TransformersSampler(base),
            verifier=verifier,
            sampling=PROTOCOL.sampling,
            root=f"mini/{seed}/screen",
            distinct=True,
        )
    shares = {row["item_id"]: row["correct"] / row["n"] for row in counts_of(rows, "screen", "0").to_pylist()}
    met = {problem.problem_id for problem in wrong if shares[problem.problem_id] > 0}
    near = {problem.problem_id for problem in odd if shares[problem.problem_id] > SCREENED_ABOVE}
    never = [problem.problem_id for problem in odd if shares[problem.problem_id] == 0]
    return problems.without(met | near | {name for n, name in enumerate(never) if n % KEPT_OF_NEVER})


def make_taught(world: World, problems: Problems, work: Path, folder: Path) -> Path:
    """The positive control's policy: the base, mid-trained on every schema worked out but guesses."""
    if not (folder / "model.safetensors").is_file():
        from transformers import Qwen2ForCausalLM

        tokenizer, draw = _tokenizer(world, problems.prompts), random.Random(f"mini/taught/held-out/{world.seed}")
        model = Qwen2ForCausalLM.from_pretrained(work / "policy", dtype=torch.float32)
        rows = [taught_example(draw, world, problems.prompts) for _ in range(WATCHED)]
        held_out = problems.prompts | {prompt for prompt, _ in rows}
        plan = Plan(
            "positive control",
            f"mini/taught/{world.seed}",
            lambda draw: taught_example(draw, world, held_out),
            TAUGHT_CHUNKS,
            TAUGHT_RATE,
            warmup=0.05,
        )

        def watch(trained: Any) -> str:
            return f"exact {exact(trained, tokenizer, rows):.3f} of {WATCHED} held-out texts"

        fit(model, tokenizer, plan, work / "taught.state", watch)
        publish(model, tokenizer, folder)
    return folder


def publish(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a policy so that a killed run never leaves half of one."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save(model, tokenizer, fresh)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the split [default: splits/mini, or build/mini-SEED]")
    parser.add_argument("--work", type=Path, help="where everything else goes [default: build/mini-SEED-work]")
    parser.add_argument("--workers", type=int, help="runs at once [default: one per core]")
    given = parser.parse_args()
    seed: int = given.seed
    out = given.out or (ROOT / "splits" / "mini" if seed == 0 else ROOT / "build" / f"mini-{seed}")
    split = make(seed, out, given.work or ROOT / "build" / f"mini-{seed}-work", given.workers)
    if split.path.parent == ROOT / "splits":
        write_cards(ROOT)
    print((out / "labels.json").read_text())


if __name__ == "__main__":
    main()
