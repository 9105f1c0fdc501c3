"""`unlearnbench new-split`: the start of a split of your own."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

import click

_CONFIG = """\
# A split to be labelled: a base policy, a pool of problems, and how they are measured. A field that is left out has its
# default, which is the paper's (arXiv 2605.16787) and stands behind ours where it differs.
# `unlearnbench curate --config {name}/split.yaml --out {name}-labelled` reads this file; the split.yaml of the labelled
# split has the same fields, with `files` and `budget` filled in.
schema_version: 1
name: {name}
description: {description}
seed: {seed}                      # root of every random stream: another seed changes the labels

base_policy:
  path: {policy}             # a folder beside this file (config.json, tokenizer, safetensors), or a name on the Hub
  revision: null             # for the Hub: a commit; null takes the newest and writes down which it was

pool:
  items: {items}             # one problem a line (or .parquet): item_id, prompt, answer, solution, family
  twins: {twins}             # optional: held-out relatives: twin_id, item_id, kind, prompt, answer
  canaries: null             # optional json: problems whose gold is wrong on purpose

prompt_format: {format}           # raw: the prompt as it is; chat: through the tokenizer's chat template

protocol:
  tau: 0.1                   # success rate below which an item counts as failed
  runs: 3                    # reference GRPO runs; more runs, fewer items that pass by luck
  samples:
    base: 32                 # rollouts per item before training
    after: 32                # and after each run
    certify: 128             # fresh ones of each candidate and run; 0 leaves candidates uncertified
    base_fresh: 128          # before training again, for scoring
    twins: 128
  sampling:                  # of every measurement; training samples by temperature alone
    temperature: 0.7
    top_p: 0.95
    max_tokens: 512          # (5120)
  min_successes: 2           # fewer in all of base and training: no_reward
  valid_trace: unknown       # solution: a rewarded rollout's trace is valid if it reads as the reference solution
  verifier_rule: strict
  verifier: {verifier}             # reasoning_gym: golds that are entries of its tasks are judged by their own scorers

recipe:                      # the reference GRPO
  steps: 120
  prompts_per_step: 32       # (256)
  group_size: 8
  updates_per_batch: 4
  max_rounds: 4
  max_tokens: 512            # of a rollout in training (5120)
  temperature: 1.0
  learning_rate: 5.0e-7      # for small policies rather 1e-5 to 1e-4: try two or three
  warmup_steps: 0
  weight_decay: 0.01
  adam_betas: [0.9, 0.999]
  gradient_clip: 1.0
  clip_low: 0.2
  clip_high: 0.2
  kl: 1.0e-4
  entropy: 1.0e-3
  standardise: true
  aggregation: token_mean    # or sequence_mean, constant
  drop_zero_signal: true
  micro_batch_tokens: 16384  # memory of a forward and backward pass
  checkpoint_every: 25
  lora: null                 # all weights are trained; an adapter instead: {{rank: 16, alpha: 32, targets: all-linear}}

provenance: {provenance}
licence: {licence}
"""

_ITEMS = tuple(
    {
        "item_id": f"sum-{number}",
        "prompt": f"What is {a} + {b}? Put the answer in \\boxed{{}}.",
        "answer": f"{a + b}",
        "solution": f"{a} + {b} = \\boxed{{{a + b}}}",
        "family": "sums",
    }
    for number, (a, b) in enumerate(((17, 25), (38, 7)), start=1)
)


_OWN = {
    "policy": "policy",
    "items": "items.jsonl",
    "twins": "null",
    "format": "raw",
    "verifier": "math",
    "description": "what the problems are, in one sentence",
    "seed": 0,
    "provenance": "where the problems come from",
    "licence": "under which they may be passed on",
}


@click.command("new-split")
@click.argument("name")
@click.option("--pool", help="Take the problems from tasks: reasoning_gym:TASK[:key=value]...[,TASK...].")
@click.option("--items", type=click.IntRange(1), help="How many problems of the pool [default: 200].")
@click.option("--examples", type=click.IntRange(0, 8), help="Worked examples before each problem [default: 0].")
@click.option("--seed", type=int, help="Seed of the problems and of all labelling [default: 0].")
@click.option("--policy", default="policy", help="A folder, or a name on the Hub [default: NAME/policy].")
@click.option(
    "--format", "form", default="raw", type=click.Choice(["raw", "chat"]), help="Prompts as they are, or as a chat."
)
def new_split(
    name: str, pool: str | None, items: int | None, examples: int | None, seed: int | None, policy: str, form: str
) -> None:
    """Write NAME/split.yaml, commented, and its problems: two to be replaced by yours, or those of a --pool."""
    import re

    from unlearnbench.errors import SplitError
    from unlearnbench.io import files

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise SplitError(f"{name!r} cannot be a split's name; use letters, digits, dots, dashes and underscores")
    if pool is None and (items is not None or examples is not None or seed is not None):
        raise click.UsageError("--items, --examples and --seed say what to take from a --pool.")
    folder = Path(name)
    if folder.exists():
        raise SplitError(f"There is a {folder} here already; choose another name, or move it away.")
    if Path(policy).is_dir():
        policy = os.path.relpath(Path(policy).resolve(), folder.resolve())
    fields = {**_OWN, "policy": policy, "format": form}
    if pool is None:
        files.write_text(folder / "items.jsonl", "".join(json.dumps(item) + "\n" for item in _ITEMS))
        where = (
            f"{folder}/split.yaml and {folder}/items.jsonl are there; put your problems into the latter and a policy "
            f"into {folder}/policy (or name it in the former), then"
        )
    else:
        fields |= _from_pool(folder, pool, items or 200, examples or 0, seed or 0)
        where = f"see whether {folder}/split.yaml is as you want it (policy, max_tokens, learning_rate), then"
    files.write_text(folder / "split.yaml", _CONFIG.format(name=name, **fields))
    click.echo(f"{where}\nunlearnbench curate --config {folder}/split.yaml --out {name}-labelled")


def _from_pool(folder: Path, pool: str, items: int, examples: int, seed: int) -> dict[str, object]:
    """Write the problems of a pool; what split.yaml says of them."""
    from unlearnbench.curation.reasoning_gym.pool import task_pool, tasks_of
    from unlearnbench.io import tables
    from unlearnbench.records import Item, Twin

    tasks = tasks_of(pool)
    made = task_pool(tasks, items, seed=seed, examples=examples)
    tables.write_records(folder / "items.parquet", made.items, Item)
    tables.write_records(folder / "twins.parquet", made.twins, Twin)
    click.echo(f"{len(made.items)} problems and {len(made.twins)} probes of {len(tasks)} tasks", err=True)
    for reason, count in sorted(made.left_out.items()):
        click.echo(f"left out: {count} ({reason})", err=True)
    return {
        "items": "items.parquet",
        "twins": "twins.parquet",
        "verifier": made.judge,
        "description": json.dumps(f"Problems of reasoning-gym: {', '.join(task.family for task in tasks)}."),
        "seed": seed,
        "provenance": json.dumps(f"reasoning-gym {version('reasoning-gym')}, {pool}, seed {seed}"),
        "licence": "Apache-2.0 (reasoning-gym)",
    }
