"""Remake `micro` from a seed: problems, base policy, labels, null controls, strong null, positive control.

    python -m recipes.micro.make            # writes splits/micro (seed 0, the shipped variant)
    python -m recipes.micro.make --seed 7   # writes build/micro-7, a sealed variant: other names, items and labels

Every stage leaves files in build/, so a run that was stopped goes on where it was. Same seed, same machine: the same
labels, all of them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from recipes.micro.base_policy import THREADS, fit, make_model, make_tokenizer, save
from recipes.micro.families import Problems, World, base_example, make_problems, make_world, taught_example
from recipes.micro.related import write_related
from unlearnbench.cli.progress import Bars
from unlearnbench.curation.curate import curate
from unlearnbench.harness.evaluate import evaluate
from unlearnbench.io import files, tables
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.records import Canary, Item, PolicyRef, Pool, Protocol, Recipe, Samples, Sampling, SplitConfig, Twin
from unlearnbench.splits import Split, load_split, write_split
from unlearnbench.splits.cards import write_cards
from unlearnbench.verifier import Verifier
from unlearnbench.workers.measure import Problem, counts_of, measure

ROOT = Path(__file__).resolve().parents[2]
BASE_STEPS = 1600
TAUGHT_STEPS = 2400
SCREENED_ABOVE = 0.075
SCREEN_SAMPLES = 256
NAMED = ("rare_skill", "private_skill", "entangled_skill")
NULL_SEEDS = 10
LONG_NULL_SEEDS = 3
POSITIVE_SEEDS = 3
STRONG_FACTORS = (0.5, 1.0, 2.0, 4.0)
STRONG_TRIAL_SEEDS = 3
STRONG_SEEDS = 10
STRONG_EASY_LOST = 0.05
MAX_TOKENS = 20

PROTOCOL = Protocol(
    tau=0.1,
    runs=8,
    samples=Samples(base=512, after=512, certify=128, base_fresh=128, twins=128),
    sampling=Sampling(temperature=0.7, top_p=0.95, max_tokens=MAX_TOKENS),
    valid_trace="solution",
)
RECIPE = Recipe(
    steps=300,
    prompts_per_step=40,
    group_size=8,
    updates_per_batch=4,
    max_rounds=4,
    max_tokens=MAX_TOKENS,
    learning_rate=1e-4,
    weight_decay=0.0,
    kl=1e-3,
    entropy=0.0,
    checkpoint_every=25,
)


def make(seed: int, out: Path, work: Path) -> Split:
    """All stages; returns the finished split."""
    world = make_world(seed)
    problems = make_problems(world)
    pool = make_pool(world, problems, work / "pool")
    with Bars() as bars:
        split = curate(pool / "split.yaml", out, work=work / "curation", progress=bars.show)
    write_related(out, seed)
    null_control(split, work, NULL_SEEDS, 1.0)
    strong_null(split, work)
    taught = make_taught(world, problems, pool / "policy", out / "positive_control" / "policy")
    positive_control(split, work, taught)
    null_control(split, work, LONG_NULL_SEEDS, 4.0)
    return load_split(out)


def null_control(split: Split, work: Path, seeds: int, multiple: float) -> None:
    """The reference GRPO with fresh seeds at one budget multiple."""
    run = work / "null" / f"{multiple:g}x"
    with Bars() as bars:
        evaluate("grpo", split, seeds, out=run, budget=multiple, purpose="null", progress=bars.show)
    ship(run, split.path / "null_control" / f"{multiple:g}x")


def strong_null(split: Split, work: Path) -> None:
    """GRPO at its best learning rate (PROTOCOL 3.5): the most converted of those that lose few easy items.

    The rate is chosen on a few seeds and scored on fresh ones, so that it is not the luck of the choice that is
    shipped. Ties go to the higher success rate.
    """
    rate = split.config.recipe.learning_rate
    tried, trials = {}, []
    for factor in STRONG_FACTORS:
        with Bars() as bars:
            result = evaluate(
                "grpo",
                split,
                STRONG_TRIAL_SEEDS,
                out=work / "strong" / f"{factor:g}x",
                settings={"learning_rate": rate * factor},
                purpose="strong-trial",
                progress=bars.show,
            )
        retention, core = result.retention, result.groups["unlearnable"]
        trials.append(
            {
                "factor": factor,
                "learning_rate": rate * factor,
                "seeds": STRONG_TRIAL_SEEDS,
                "items": core.items,
                "converted": core.converted,
                "easy_items": retention.easy_items,
                "easy_lost": retention.easy_lost,
            }
        )
        if (retention.easy_lost or 0) <= STRONG_EASY_LOST * retention.easy_items:
            tried[factor] = (core.converted or 0, core.rate_after or 0.0)
    files.write_json(split.path / "strong_null" / "trials.json", {"schema_version": 1, "trials": trials})
    if not tried:
        return
    best = max(tried, key=lambda factor: tried[factor])
    with Bars() as bars:
        evaluate(
            "grpo",
            load_split(split.path),
            STRONG_SEEDS,
            out=work / "strong" / "best",
            settings={"learning_rate": rate * best},
            purpose="strong",
            progress=bars.show,
        )
    ship(work / "strong" / "best", split.path / "strong_null")


def positive_control(split: Split, work: Path, taught: Path) -> None:
    """GRPO from the mid-trained policy: shows that the score can rise."""
    with Bars() as bars:
        evaluate(
            "grpo",
            load_split(split.path),
            POSITIVE_SEEDS,
            out=work / "positive",
            start=taught,
            purpose="positive",
            progress=bars.show,
        )
    ship(work / "positive", split.path / "positive_control")


def make_pool(world: World, problems: Problems, folder: Path) -> Path:
    """The unlabelled split: problems, base policy and protocol."""
    name = "micro" if world.seed == 0 else f"micro-{world.seed}"
    policy = folder / "policy"
    if not (policy / "model.safetensors").is_file():
        tokenizer = make_tokenizer()
        model = make_model(world.seed, len(tokenizer))
        held_out = problems.prompts
        fit(
            model,
            tokenizer,
            lambda draw: base_example(draw, world, held_out),
            steps=BASE_STEPS,
            seed=f"base/{world.seed}",
            label="base policy",
        )
        publish(model, tokenizer, policy)
    problems = screened(problems, policy, world.seed)
    tables.write_records(folder / "items.parquet", problems.items, Item)
    tables.write_records(folder / "twins.parquet", problems.twins, Twin)
    tables.write_records(folder / "canaries.json", problems.canaries, Canary)
    config = SplitConfig(
        name=name,
        description="Two-digit problems under names that the base policy knows, half knows, or cannot know.",
        seed=world.seed,
        base_policy=PolicyRef(path="policy"),
        pool=Pool(items="items.parquet", twins="twins.parquet", canaries="canaries.json"),
        protocol=PROTOCOL,
        recipe=RECIPE,
        provenance=f"generated by recipes/micro with seed {world.seed}; labels measured by `unlearnbench curate`",
        licence="Apache-2.0",
    )
    write_split(folder, config, list(problems.items))
    return folder


def screened(problems: Problems, policy: Path, seed: int) -> Problems:
    """The problems less the named items that the base already answers more often than SCREENED_ABOVE.

    Which operation a name suggests to the base differs from name to name. Items near tau would be called easy or not
    by chance, and GRPO loses or gains them by chance, so `easy` would tell nothing of what a method forgets. They are
    left out by samples that no label rests on; how often an item is *learned* plays no part.
    """
    torch.set_num_threads(THREADS)
    base = load_policy(policy)
    named = [item for item in problems.items if item.cause in NAMED]
    with Verifier() as verifier:
        rows = measure(
            [Problem(item.item_id, item.prompt, item.answer) for item in named],
            SCREEN_SAMPLES,
            policy=base,
            sampler=TransformersSampler(base),
            verifier=verifier,
            sampling=PROTOCOL.sampling,
            root=f"micro/{seed}/screen",
            distinct=True,
        )
    counts = counts_of(rows, "screen", "0").to_pylist()
    return problems.without({row["item_id"] for row in counts if row["correct"] > SCREENED_ABOVE * row["n"]})


def make_taught(world: World, problems: Problems, base: Path, folder: Path) -> Path:
    """The positive control's policy: the base, mid-trained on what the names mean and the missing skills."""
    if not (folder / "model.safetensors").is_file():
        from transformers import Qwen2ForCausalLM

        tokenizer = make_tokenizer()
        model = Qwen2ForCausalLM.from_pretrained(base)
        held_out = problems.held_out
        fit(
            model,
            tokenizer,
            lambda draw: taught_example(draw, world, held_out),
            steps=TAUGHT_STEPS,
            seed=f"taught/{world.seed}",
            label="positive control",
        )
        publish(model, tokenizer, folder)
    return folder


def publish(model: object, tokenizer: object, folder: Path) -> None:
    """Save a policy so that a killed run never leaves half of one."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    save(model, tokenizer, fresh)  # type: ignore[arg-type]
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)


def ship(run: Path, folder: Path) -> None:
    """Copy what a control's readers need out of a run's folder."""
    for name in ("counts.parquet", "result.json"):
        files.write_bytes(folder / name, (run / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    seed: int = arguments.seed
    out = arguments.out or (ROOT / "splits" / "micro" if seed == 0 else ROOT / "build" / f"micro-{seed}")
    split = make(seed, out, ROOT / "build" / f"micro-{seed}-work")
    if split.path.parent == ROOT / "splits":
        write_cards(ROOT)
    print((out / "labels.json").read_text())


if __name__ == "__main__":
    main()
