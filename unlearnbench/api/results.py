"""What became of runs, and the data, from Python: `diagnose`, `compare`, `read_run`, `submit`, `validate`, `export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnbench.api.arguments import split_of
from unlearnbench.splits import Split, find_split

if TYPE_CHECKING:
    from unlearnbench.diagnosis.record import Diagnosis
    from unlearnbench.methods.listing import MethodSummary
    from unlearnbench.scoring.comparisons.comparability import Finished
    from unlearnbench.scoring.comparisons.comparison import Comparison
    from unlearnbench.scoring.comparisons.pilot import PilotComparison


def diagnose(
    policy: str | Path,
    split: str | Path | Split | None = None,
    *,
    rollouts: str | Path | None = None,
    out: str | Path | None = None,
    revision: str | None = None,
    rollouts_per_item: int = 20,
    items_per_group: int | None = None,
    groups: Sequence[str] | None = None,
    cap: int = 1024,
    reward: Literal["correct", "group"] = "correct",
    entropy_share: float = 1.0,
    parameters: str = "lora",
    targets: Sequence[str] = ("q_proj", "v_proj"),
    rank: int = 16,
    adapter_seeds: int = 1,
    parts: int = 4,
    seed: int = 0,
    prompt_format: Literal["raw", "chat"] | None = None,
    columns: Mapping[str, str] | None = None,
    step: int | None = None,
    max_memory: int = 4 << 30,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Diagnosis:
    """Compare the policy gradients of a split's items: which point the same way, and which away from the others.

    Args:
        policy: A folder, a name on the Hub, a shipped split's name (its base), or a run's checkpoint.
        split: Whose items; default micro, unless `rollouts` are given.
        rollouts: A file of rollouts to use first (.jsonl or .parquet).
        out: The folder for the results.
        revision: Revision of a policy on the Hub.
        rollouts_per_item: The same for every item; items that have fewer are left out and listed.
        items_per_group: At most this many items of each group, the first of a shuffle; default all.
        groups: Groups to compare; default easy, learnable and unlearnable.
        cap: Samples per item at most.
        reward: Correct rollouts alone, or all ("group"), weighted by their standardised reward.
        entropy_share: Share of each rollout's tokens that counts: those of highest entropy.
        parameters: "lora", "all", or parts of weights' names with commas between them.
        targets: Modules that get the random adapter.
        rank, adapter_seeds: Rank of an adapter, and how many random ones.
        parts: Parts of an item's rollouts, from which its noise is known.
        seed: Of adapter, samples and shuffle.
        prompt_format: Default the split's.
        columns: A file's own columns for those that are read, such as {"completion": "output"}.
        step: Of a trainer's log, the step whose rollouts are used.
        max_memory, workers: Bytes of all processes together, and how many (default one per core).
        progress: Is given the stage, how many items it has done, and of how many.

    Returns:
        `cosine` (items, items) and `reliability` (items,) as arrays, `blocks` and `auc`, `record` (similarity.json),
        and `block("learnable", "unlearnable")` for one pair of groups.

    Raises:
        PolicyError: The policy cannot be found or used.
        DataError: Too few items have enough rollouts, or a row of the file is malformed.
        RunError: `out` holds another diagnosis, or it takes more memory than allowed.

    Example:
        >>> ub.diagnose("micro", items_per_group=20).block("learnable", "unlearnable").raw
    """
    from unlearnbench.diagnosis.diagnose import diagnose as run
    from unlearnbench.harness.rollouts.files import Reading

    return run(
        policy,
        split,
        rollouts=rollouts,
        reading=Reading(columns=dict(columns or {}), step=step),
        out=out,
        revision=revision,
        max_memory=max_memory,
        workers=workers,
        progress=progress,
        rollouts_per_item=rollouts_per_item,
        items_per_group=items_per_group,
        groups=None if groups is None else tuple(groups),
        cap=cap,
        reward=reward,
        entropy_share=entropy_share,
        parameters=parameters,
        targets=tuple(targets),
        rank=rank,
        adapter_seeds=adapter_seeds,
        parts=parts,
        seed=seed,
        prompt_format=prompt_format,
    )


def compare(
    *runs: str | Path | Finished | Sequence[str | Path | Finished],
    split: str | Path | Split | None = None,
    pilot: bool = False,
) -> Comparison | PilotComparison:
    """Compare runs item by item, each pair with its intervals.

    Args:
        *runs: Folders of finished runs, what `read_run` returns, or one list of them.
        split: The split that they were scored on; default the one that their results name.
        pilot: Show rates of quick or partial runs side by side instead, without any claim.

    Returns:
        `runs`, `differences` (settings that differ, and whether that matters) and `pairs`, each with `gain`,
        `interval_families`, `p`, `claim` and the items that only one of the two solved. With `pilot`: `groups` and
        `families`, each row with the `rates` of every run.

    Raises:
        RunError: It would be unfair to compare these runs; names the setting that differs.
        SplitError: The labels that they were scored on are not found.

    Example:
        >>> ub.compare("runs/micro/a", "runs/micro/b").pairs[0].gain
    """
    from unlearnbench.scoring.comparisons.comparability import Finished
    from unlearnbench.scoring.comparisons.comparison import compare as run
    from unlearnbench.scoring.comparisons.pilot import pilot as side_by_side

    given: list[str | Path | Finished] = []
    for one in runs:
        given += [one] if isinstance(one, str | Path | Finished) else list(one)
    labels = None if split is None else split_of(split)
    return side_by_side(given, labels) if pilot else run(given, labels)


def read_run(folder: str | Path) -> Finished:
    """A finished run from its folder.

    Args:
        folder: The run's folder (`out` of `evaluate`), or that of a split's control.

    Returns:
        `result`, `counts` (a pyarrow table of n and correct), `configuration` and `environment`.

    Raises:
        RunError: There is no finished run.
        DataError: Its result.json is malformed.

    Example:
        >>> ub.read_run("runs/micro/grpo-1x").result.to_frame()
    """
    from unlearnbench.scoring.comparisons.comparability import read_run as run

    found = run(Path(folder))
    return replace(found, result=found.result.in_folder(Path(folder)))


def validate(folder: str | Path) -> list[str]:
    """Check every file of a split against its hash, its schema and the others.

    Args:
        folder: A shipped split's name, or a folder that holds split.yaml.

    Returns:
        A sentence for each thing that is wrong, naming file, row and field; empty for a valid split.

    Raises:
        SplitError: There is no such split.

    Example:
        >>> ub.validate("micro")
        []
    """
    from unlearnbench.curation.validate import validate as run

    return run(find_split(folder))


def export(
    split: str | Path | Split = "micro",
    format: Literal["trl", "verl", "jsonl"] = "jsonl",
    *,
    out: str | Path,
    part: str = "train",
    canaries: bool = False,
) -> Path:
    """Write a split as files that TRL, verl or anything else reads as they are.

    Args:
        split: As `evaluate` takes it.
        format: Who reads it.
        out: The folder to write to.
        part: All items ("train") or those of one group.
        canaries: Mix in the problems whose gold is wrong on purpose.

    Returns:
        The file.

    Raises:
        SplitError: The part is unknown or empty.

    Example:
        >>> ub.export("micro", "trl", out="data")
    """
    from unlearnbench.adapters.export import export as run

    return run(split_of(split), format, Path(out), part=part, canaries=canaries)


def submit(
    folder: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    authors: Sequence[str] = (),
    url: str | None = None,
    tried: int | None = None,
    method: str | None = None,
    split: str | None = None,
) -> Any:
    """Bundle a finished run for the leaderboard, and verify the bundle.

    Args:
        folder: The run's folder.
        out: The bundle to write (.zip).
        name: Name of the entry; default the method's.
        authors: Who made it.
        url: Address of a paper or repository.
        tried: Configurations evaluated before this one was chosen, it included.
        method: The method's file, where the run does not keep it.
        split: The split that was run on, if it is not a shipped one: its folder.

    Returns:
        What the verification found: `verified`, and `words` that say why not.

    Raises:
        RunError: The run is not finished.

    Example:
        >>> ub.submit("runs/micro/my_algo-1x", "my_algo.zip", authors=["me"]).verified
    """
    from unlearnbench.leaderboard.bundles.bundle import Statement
    from unlearnbench.leaderboard.bundles.writing import write_bundle
    from unlearnbench.leaderboard.verification import verify_bundle

    title = name or read_run(folder).result.method.name
    statement = Statement(name=title, authors=tuple(authors), url=url, tried=tried)
    write_bundle(Path(folder), Path(out), statement, method)
    return verify_bundle(Path(out), split)


def methods() -> Sequence[MethodSummary]:
    """The methods that can be evaluated by name.

    Returns:
        For each its `name`, `track`, `source` (a paper, or who made it) and `gain` (as measured here, or None).

    Example:
        >>> [of.name for of in ub.methods() if of.track == "verifier"]
    """
    from unlearnbench.methods.listing import listed

    return listed()[0]
