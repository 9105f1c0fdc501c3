"""The folders of the paper's splits (arXiv 2605.16787): split.yaml and released.json, without any problem's text.

    python -m recipes.paper.make ARTIFACTS     # the folder of the paper's eight released files

Ids are the numbers before the underscore in the files' own ids: an item is listed if at least one problem generated
from it survived the paper's two-model check, so an unlearnable list is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import yaml

from unlearnbench.io import files
from unlearnbench.records import PolicyRef, Protocol, Recipe, Samples, Sampling, SplitConfig
from unlearnbench.splits.manifest import (
    RELEASED,
    Release,
    Released,
    ReleasedFile,
    ReleasedGroup,
    RewardLog,
    SourceData,
)

ROOT = Path(__file__).resolve().parents[2]
PAPER = "arXiv 2605.16787"
SEEDS = (1, 42, 37)
REPOSITORY = "https://raw.githubusercontent.com/yulinchen99/unlearnability-rlvr"
ADDRESSES = tuple(
    f"{REPOSITORY}/{commit}/example_data" for commit in ("1839253733543d7533418989affec5346371d443", "1dce7fe", "main")
)
NOTICE = (
    "The problems in similar.parquet and sub_problems.parquet were generated and released by the authors of The "
    "Unlearnability Phenomenon in RLVR for Language Models (arXiv 2605.16787), "
    "https://github.com/yulinchen99/unlearnability-rlvr, commit 1dce7fe, under the Apache License 2.0 "
    "(https://www.apache.org/licenses/LICENSE-2.0). Changed here: one table a kind, linked to items by item_id, with "
    "a mark on problems that repeat an item."
)
LABELS = (
    "Labels are as released: three reference runs (seeds 1, 42, 37), 32 samples each, by the paper's rule and "
    "verifier. None is certified: a label from 32 samples is noisy, and an item with a true rate of tau is called "
    "unlearnable by three such runs in about a fifth of the cases (PROTOCOL 2)."
)
LOWER = (
    "Unlearnable ids are those of items for which at least one generated problem survived the paper's two-model check: "
    "a lower bound. Items outside the lists have no label here, unlearnable ones among them."
)
SAMPLE = "Learnable ids are a sample of 100."
NO_IDS = (
    "No ids were released for easy, no_reward and unstable items, and no counts of rollouts before or after training: "
    "rates before training are null, retention cannot be scored, and `thin` is unknown and stored as false. `curate` "
    "measures all of it."
)
NO_REWARDS = "No rewards of this setting's training runs were released."
REWARDS = (
    "Of the three training runs, the rewards of one were released (prompt_reward_stats.csv: step, prompt, mean reward, "
    "rollouts). `splits build` fetches the file; `splits show` prints mean rewards by group and the items that this "
    "run never rewarded. The paper's no_reward set is the union over three runs, so it cannot be made from one, and no "
    "label here rests on the file."
)
REWARD_LOG = RewardLog(
    name="prompt_reward_stats.csv",
    git_blob="84027d1adf2a85e9a168c7a5888a3653f5b1b600",
    about="one of the paper's training runs of Qwen2.5-0.5B on simplelr_qwen_level1to4; its seed is not stated",
)
NO_CONTROLS = (
    "There are no controls and no 1x budget: every gain is null until `unlearnbench eval --method grpo --out "
    "DIR/null_control/1x` was run. There are no canaries, and no twins: nothing counts as converted until `curate` has "
    "measured which of the similar problems may serve as probes (PROTOCOL 3.3)."
)
POSITIONS = (
    "The released ids of the learnable items (200 to 299) are positions in a sample that was not released, not "
    "indices; 13 of them equal the index of another, unlearnable item. They are never joined on; `splits build` "
    "resolves them by text where that is certain and leaves the others out."
)
PART = (
    "The release calls the HF split `test`; indices beyond 8,000 and an independent replication speak for `train`, and "
    "`splits build` checks it by text."
)
MATH = "MIT (MATH, Hendrycks et al. 2021), as redistributed by hkust-nlp under Apache-2.0"


def simplerl(setting: str) -> SourceData:
    """One setting of SimpleRL-Zoo's data."""
    return SourceData(
        repository="hkust-nlp/SimpleRL-Zoo-Data",
        file=f"{setting}/train.parquet",
        licence=MATH,
        form="simplerl",
        numbering="extra_info.index",
    )


def release(
    artifacts: Path, setting: str, learnable: str, rewards: RewardLog | None = None
) -> tuple[Release, dict[str, ReleasedGroup]]:
    """The four files of a setting, and the numbers in them."""
    described, numbers = [], {"unlearnable": set[int](), "learnable": set[int]()}
    for group in ("unlearnable", "learnable"):
        for prefix, kind in (("augmented", "similar"), ("decomposed", "sub_problems")):
            path = artifacts / f"all_{prefix}_data_{setting}_{group}_filtered.json"
            numbers[group] |= {int(row["id"].split("_")[0]) for row in json.loads(path.read_text(encoding="utf-8"))}
            means = learnable if group == "learnable" else "index"
            meaning: dict[str, Any] = {"kind": kind, "group": group, "numbers": means}
            described.append(ReleasedFile(name=path.name, sha256=files.sha256(path), **meaning))
    field = "positions" if learnable == "position" else "ids"
    sampled: dict[str, Any] = {field: sorted(numbers["learnable"])}
    groups = {
        "unlearnable": ReleasedGroup(ids=sorted(numbers["unlearnable"]), extent="lower bound"),
        "learnable": ReleasedGroup(**sampled, extent="sample", note=POSITIONS if learnable == "position" else ""),
    }
    return Release(addresses=ADDRESSES, licence="Apache-2.0", notice=NOTICE, files=described, rewards=rewards), groups


def config(name: str, policy: PolicyRef, about: str, tokens: int, **changes: Any) -> SplitConfig:
    """split.yaml by the paper's recipe; `tokens` is the limit of a response in training and evaluation."""
    given: dict[str, Any] = {
        "name": name,
        "description": about,
        "label_rule": "paper",
        "base_policy": policy,
        "protocol": Protocol(samples=Samples(certify=0), sampling=Sampling(max_tokens=tokens)),
        "recipe": Recipe(max_tokens=tokens),
        "provenance": f"ids and generated problems released with {PAPER}; problem texts from the source in {RELEASED}",
        "licence": f"ids: Apache-2.0; generated problems: Apache-2.0; problem texts: {MATH}",
    }
    return SplitConfig(**given | changes)


def write(made: SplitConfig, released: Released) -> None:
    """Both files of a split; a list of numbers is one line."""
    folder = ROOT / "splits" / made.name
    text = yaml.safe_dump(made.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)
    files.write_text(folder / "split.yaml", text)
    shown = json.dumps(released.model_dump(mode="json"), indent=1, ensure_ascii=False)
    flat = re.sub(r"\[[\d,\s]*\]", lambda found: "[" + ", ".join(re.findall(r"\d+", found.group())) + "]", shown)
    files.write_text(folder / RELEASED, flat + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("artifacts", type=Path)
    artifacts = parser.parse_args().artifacts

    released, groups = release(artifacts, "qwen_0.5b_math_level1to4", "position", REWARD_LOG)
    missing = (LABELS, LOWER, SAMPLE, POSITIONS, NO_IDS, REWARDS, NO_CONTROLS, PART)
    easy: dict[str, Any] = {"groups": groups, "missing": missing}
    write(
        config(
            "qwen2.5-0.5b-math-easy",
            PolicyRef(
                path="Qwen/Qwen2.5-0.5B", revision="060db6499f32faf8b98477b0a26969ef7d8b9987", parameters=494032768
            ),
            "MATH levels 1 to 4 for Qwen2.5-0.5B: the paper's setting MATH-Easy, labels as released.",
            5120,
        ),
        Released(paper=PAPER, source=simplerl("simplelr_qwen_level1to4"), release=released, seeds=SEEDS, **easy),
    )

    released, groups = release(artifacts, "llama_3b_it_math_level3to5", "index")
    missing = (LABELS, LOWER, SAMPLE, NO_IDS, NO_REWARDS, NO_CONTROLS, PART)
    hard: dict[str, Any] = {"groups": groups, "missing": missing}
    write(
        config(
            "llama-3.2-3b-it-math-hard",
            PolicyRef(
                path="meta-llama/Llama-3.2-3B-Instruct",
                revision="0cb88a4f764b7a12671c53f0838cd831a0843b95",
                parameters=3212749824,
            ),
            "MATH levels 3 to 5 for Llama-3.2-3B-Instruct: the paper's setting MATH-Hard, labels as released.",
            5120,
            prompt_format="chat",
        ),
        Released(paper=PAPER, source=simplerl("simplelr_qwen_level3to5"), release=released, seeds=SEEDS, **hard),
    )

    write(
        config(
            "qwen2.5-3b-deepscaler",
            PolicyRef(
                path="Qwen/Qwen2.5-3B", revision="3aab1f1954e9cc14eb9509a215f9e5ca08227a9b", parameters=3085938688
            ),
            "DeepScaleR for Qwen2.5-3B: the paper's third setting. No labels were released: a pool for curate.",
            8192,
            label_rule="protocol",
            protocol=Protocol(sampling=Sampling(max_tokens=8192)),
            recipe=Recipe(max_tokens=8192, learning_rate=1e-6),
            provenance=f"no ids were released ({PAPER}); labels are to be measured by `unlearnbench curate`",
            licence="MIT (DeepScaleR-Preview-Dataset)",
        ),
        Released(
            paper=PAPER,
            source=SourceData(
                repository="agentica-org/DeepScaleR-Preview-Dataset",
                file="deepscaler.json",
                licence="MIT",
                form="problems",
                numbering="row",
            ),
            missing=(
                "No ids, generated problems or rewards were released for this setting: no item has a label. `splits "
                "build` makes the pool, and `unlearnbench curate --config POOL/split.yaml --out DIR` measures the "
                "labels.",
                "How the paper worded the prompt is not known; the pool uses the template of its other Qwen setting.",
            ),
        ),
    )


if __name__ == "__main__":
    main()
