"""Remake `micro` from a seed: problems, base policy, labels, null controls, tuned nulls, positive control.

    python -m recipes.micro.make            # writes splits/micro (seed 0, the shipped variant)
    python -m recipes.micro.make --seed 7   # writes build/micro-7, a sealed variant: other names, items and labels

Every stage leaves files in build/, so a run that was stopped goes on where it was. Same seed, same machine: the same
labels, all of them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch

from recipes.micro.base_policy import THREADS, fit, make_model, make_tokenizer, save
from recipes.micro.families import Problems, World, base_example, make_problems, make_world, taught_example
from recipes.micro.related import write_related
from unlearnbench.cli.progress import Bars
from unlearnbench.curation.curate import curate
from unlearnbench.harness.evaluate import evaluate_run
from unlearnbench.harness.run_config import RunConfig
from unlearnbench.io import files, tables
from unlearnbench.methods import locate
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
NULL_MULTIPLES = (1.0, 4.0)
POSITIVE_SEEDS = 3
TUNED_RATES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
"""Multiples of the recipe's learning rate (PROTOCOL 3.5)."""
TUNED_SEEDS = 5
MAX_TOKENS = 20

PROTOCOL = Protocol(
    tau=0.1,
    runs=4,
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
        curate(pool / "split.yaml", out, work=work / "curation", progress=bars.show)
    write_related(out, seed)
    taught = make_taught(world, problems, pool / "policy", out / "positive_control" / "policy")
    control(out, "null_control/1x", work, NULL_SEEDS, purpose="null")
    control(out, "positive_control", work, POSITIVE_SEEDS, purpose="positive", start=taught)
    for factor in TUNED_RATES:
        rate = RECIPE.learning_rate * factor
        name = f"tuned_null/{factor:g}"
        control(out, name, work, TUNED_SEEDS, purpose=f"tuned-{factor:g}", settings={"learning_rate": rate})
    for multiple in NULL_MULTIPLES[1:]:
        control(out, f"null_control/{multiple:g}x", work, NULL_SEEDS, purpose="null", multiple=multiple)
    return load_split(out)


def control(out: Path, name: str, work: Path, seeds: int, **how: Any) -> None:
    """The reference GRPO with fresh seeds, shipped under this name: result, counts, and training curves by group."""
    run = work / name
    config = RunConfig(load_split(out), locate("grpo"), tuple(range(1, seeds + 1)), **how)
    with Bars() as bars:
        evaluate_run(config, run, progress=bars.show)
    for file in ("result.json", "counts.parquet", "curves.parquet"):
        files.write_bytes(out / name / file, (run / file).read_bytes())


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
