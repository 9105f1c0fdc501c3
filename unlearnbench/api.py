"""What `import unlearnbench as ub` offers for a script or a notebook: each command as a function, with its defaults.

The work is done in the rooms; here stand the arguments as Python has them (a class is as good as a file's name, "1x" as
good as 1.0), progress as a notebook shows it, and what each returns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unlearnbench.class_source import written_source
from unlearnbench.errors import RunError
from unlearnbench.records import Result
from unlearnbench.splits import Split, load_split

if TYPE_CHECKING:
    from unlearnbench.diagnosis.record import Diagnosis
    from unlearnbench.harness.plan import Planned
    from unlearnbench.method import Method
    from unlearnbench.methods.listing import MethodSummary
    from unlearnbench.scoring.comparability import Finished
    from unlearnbench.scoring.comparison import Comparison
    from unlearnbench.scoring.pilot import PilotComparison
    from unlearnbench.workers.jobs import Compute, Watch


def evaluate(
    method: str | type[Method],
    split: str | Path | Split = "micro",
    seeds: int | Sequence[int] = 3,
    *,
    samples: int = 32,
    out: str | Path | None = None,
    budget: str | float = "1x",
    settings: Mapping[str, Any] | None = None,
    quick: bool = False,
    diagnose: bool = True,
    log_to: Sequence[str] = (),
    compute: Compute | None = None,
    progress: bool | Watch = True,
) -> Result:
    """Train a method on a split for every seed, evaluate what it left, and score it against the null control.

    Args:
        method: A built-in name, `path/to/file.py[:Class]`, `package.module:Class`, an entry point, or a subclass of
            `ub.Method`, also one that was defined in a notebook cell.
        split: A shipped split's name, a folder that holds split.yaml, or a `ub.Split`.
        seeds: How many seeds (1 to n), or the seeds themselves.
        samples: Rollouts per item and seed after training; at least 32 for a score.
        out: The run's folder; default `runs/<split>/<method>-<hash>-<budget>`. A folder that holds part of the same
            run is resumed.
        budget: Multiple of the reference runs' cost, such as "1x" or 0.5.
        settings: Settings of the method that differ from its own.
        quick: One seed, few steps and samples: a smoke test, not comparable.
        diagnose: Whether to compare items' gradients at start and end (about a minute on micro; not with `quick`).
        log_to: Trackers that get the training curves: "tensorboard", "wandb", "trackio", "mlflow".
        compute: How this machine works on it (`unlearnbench.workers.jobs.Compute`).
        progress: Whether to show progress, or a function that is given the events.

    Returns:
        The scored result. `result.conversion.gain` and `.interval_families` are the headline; `result.groups`,
        `.frontier`, `.retention`, `.cost` and `.similarity` stand beside it. `print(result)` is the sentence to quote,
        `result.to_frame()` a pandas frame of all items, `result.plot()` the gains as a figure.

    Raises:
        MethodError: The method cannot be loaded, or one of its steps fails.
        SplitError: There is no such split, or it is malformed.
        RunError: The folder holds another run, or a setting is impossible.

    Example:
        >>> result = ub.evaluate("grpo", quick=True)
        >>> print(result)
    """
    from unlearnbench.diagnosis import evaluate as whole
    from unlearnbench.harness.trackers import Trackers

    trackers, given = Trackers(log_to), {"samples": samples, "settings": settings, "compute": compute}
    with _named(method) as name, _shown(progress) as (show, place):

        def placed(folder: Path) -> None:
            place(folder)
            trackers.place(folder)

        def watch(event: Any) -> None:
            show(event)
            trackers.show(event)

        done = whole.evaluate(
            name,
            split,
            seeds,
            diagnose=diagnose,
            quick=quick,
            progress=watch,
            placed=placed,
            out=out,
            budget=multiple_of(budget),
            **given,
        )
        trackers.finish(done.result)
    return done.result.in_folder(done.folder)


def score(
    files: str | Path | Sequence[str | Path],
    split: str | Path | Split = "micro",
    *,
    out: str | Path,
    seeds: Sequence[int] | None = None,
    partial: bool = False,
    workers: int | None = None,
) -> Result:
    """Judge and score rollouts that were made anywhere.

    Args:
        files: One file or several (.jsonl, .parquet, or logs of lm-eval-harness and inspect_ai) with `item_id` and
            `completion`, and `seed` if there are several; together they are one set.
        split: The split whose items they answer.
        out: The folder for result.json, counts, verdicts and report.html.
        seeds: The training run of each file that names none.
        partial: Score what is there though items are missing; the result is then not comparable.
        workers: Processes that judge; default one per core.

    Returns:
        The scored result, of track `undeclared`.

    Raises:
        DataError: A row is malformed, or an item is missing; names file, row and field.
        RunError: `out` holds another run.

    Example:
        >>> ub.score("rollouts.jsonl", split="micro", out="runs/scored").conversion.gain
    """
    from unlearnbench.harness.score_rollouts import score_rollouts

    sources = [files] if isinstance(files, str | Path) else list(files)
    result = score_rollouts(sources, split, out, seeds=seeds, partial=partial, workers=workers)
    return result.in_folder(Path(out))


def check(
    method: str | type[Method],
    split: str | Path | Split = "micro",
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a method for two tiny steps: seconds, before minutes are spent.

    Args:
        method: As `evaluate` takes it.
        split: As `evaluate` takes it.
        settings: Settings of the method that differ from its own.

    Returns:
        What `unlearnbench check --json` prints: `class`, `track`, `declared_track`, `reads` (what it asked the judge
        for), `hooks` (those it overrides), `not_hooks` (public methods that are never called, with the nearest hook),
        `settings`, `steps`, and `cost` in tokens and FLOPs.

    Raises:
        MethodError: The method cannot be loaded, or a step fails; names the line of its file.

    Example:
        >>> ub.check(MyAlgo)["hooks"]
        ['advantages']
    """
    from unlearnbench.cli.check import TINY
    from unlearnbench.harness.trial_run import trial
    from unlearnbench.methods import locate

    with _named(method) as name, tempfile.TemporaryDirectory() as folder:
        return trial(_split(split), locate(name), "check", Path(folder), 2, dict(settings or {}), TINY).summary()


def plan(
    method: str | type[Method] = "grpo",
    split: str | Path | Split = "micro",
    *,
    seeds: int = 3,
    samples: int = 32,
    budget: str | float = "1x",
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    experiments: int | None = None,
) -> Planned:
    """What a run will cost and the smallest gain it can detect, before any of it is paid for.

    Args:
        method: As `evaluate` takes it.
        split: As `evaluate` takes it.
        seeds: Number of seeds.
        samples: Rollouts per item and seed.
        budget: Multiple of the reference runs' cost, such as "1x".
        settings: Settings of the method that differ from its own.
        device: Time by the published peak of a device such as "H100"; default: some steps are tried here.
        experiments: Simulated experiments behind the smallest gain; default as many as take seconds.

    Returns:
        `training` and `evaluation` (tokens and FLOPs per seed), `timing`, `space`, and `power`, whose `detectable`
        lists the smallest gain for each kind of effect and interval.

    Raises:
        RunError: The device is unknown, or the size of the policy is.
        MethodError: As the method's own steps do.

    Example:
        >>> ub.plan(seeds=10).power.detectable[1].gain
    """
    from unlearnbench.harness.plan import plan as run

    with _named(method) as name:
        return run(
            _split(split),
            name,
            seeds=seeds,
            samples=samples,
            multiple=multiple_of(budget),
            settings=settings,
            device=device,
            experiments=experiments,
        )


def curate(
    config: str | Path,
    out: str | Path,
    *,
    rule: Literal["protocol", "paper"] = "protocol",
    work: str | Path | None = None,
    compute: Compute | None = None,
    progress: bool | Watch = True,
) -> Split:
    """Measure which items of a pool a policy can learn, and write the labelled split.

    Args:
        config: split.yaml of the pool, beside its files (`unlearnbench new-split` writes one).
        out: The folder of the finished split.
        rule: The labelling rule: this project's, or the paper's released one.
        work: Where intermediate files go; default `<out>/.curation`. An interrupted curation resumes there.
        compute: How this machine works on it.
        progress: Whether to show progress, or a function that is given the events.

    Returns:
        The split. It has no null control yet: `evaluate("grpo", split, 10, out=split.path / "null_control/1x")`.

    Raises:
        SplitError: The pool is malformed.
        DataError: A file of it is; names file, row and field.
        RunError: `work` belongs to another configuration.

    Example:
        >>> ub.curate("mine/split.yaml", "mine-labelled")["unlearnable"]
    """
    from unlearnbench.curation.curate import curate as run

    with _shown(progress) as (show, _):
        return run(config, out, rule=rule, work=work, compute=compute, progress=show)


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
    max_memory: int = 4 << 30,
    workers: int | None = None,
) -> Diagnosis:
    """Compare the policy gradients of a split's items: which point the same way, and which away from the others.

    Args:
        policy: A folder, a name on the Hub, a shipped split's name (its base policy), or a run's checkpoint.
        split: Whose items; default micro, unless `rollouts` are given.
        rollouts: A file of rollouts to use first (.jsonl or .parquet).
        out: The folder for the results.
        revision: Revision of a policy on the Hub.
        rollouts_per_item: The same for every item; items that have fewer are left out and listed.
        items_per_group: At most so many, by a shuffle; default all.
        groups: Groups to compare; default easy, learnable and unlearnable.
        cap: Samples per item at most.
        reward: Correct rollouts alone, or all ("group"), weighted by their standardised reward.
        entropy_share: Share of each rollout's tokens that counts: those of highest entropy.
        parameters: "lora", "all", or parts of weights' names with commas between them.
        targets: Modules that get the random adapter.
        rank: Rank of the adapter.
        adapter_seeds: Number of random adapters.
        parts: Parts of an item's rollouts, from which its noise is known.
        seed: Of adapter, samples and shuffle.
        prompt_format: "raw" or "chat"; default the split's.
        max_memory: Bytes for all processes together.
        workers: Processes; default one per core, one with an accelerator.

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

    return run(
        policy,
        split,
        rollouts=rollouts,
        out=out,
        revision=revision,
        max_memory=max_memory,
        workers=workers,
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
    from unlearnbench.scoring.comparability import Finished
    from unlearnbench.scoring.comparison import compare as run
    from unlearnbench.scoring.pilot import pilot as side_by_side

    given: list[str | Path | Finished] = []
    for one in runs:
        given += [one] if isinstance(one, str | Path | Finished) else list(one)
    labels = None if split is None else _split(split)
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
    from dataclasses import replace

    from unlearnbench.scoring.comparability import read_run as run

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
    from unlearnbench.splits import find_split

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

    return run(_split(split), format, Path(out), part=part, canaries=canaries)


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
    from unlearnbench.leaderboard.bundle import Statement, write_bundle
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


# --- arguments ----------------------------------------------------------------------------------------------------


def multiple_of(budget: str | float) -> float:
    """A budget such as "1x", "0.5" or 4. Raises RunError for what is none."""
    try:
        found = float(str(budget).removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 1000:
        raise RunError(f"{budget!r} is no budget; give a multiple above 0 and up to 1000, such as '1x'")
    return found


def _split(split: str | Path | Split) -> Split:
    return split if isinstance(split, Split) else load_split(split)


@contextmanager
def _named(method: str | type[Method]) -> Iterator[str]:
    """A method as the harness names it: of a class that no file holds, a file that is gone afterwards.

    The run keeps its own copy, `<seed>/method.py`.
    """
    if isinstance(method, str):
        yield method
        return
    with tempfile.TemporaryDirectory(prefix="unlearnbench-") as folder:
        yield written_source(method, Path(folder))


@contextmanager
def _shown(progress: bool | Watch) -> Iterator[tuple[Watch, Callable[[Path], None]]]:
    """What takes the events, and what takes the run's folder."""
    import sys

    if callable(progress):
        yield progress, lambda folder: None
    elif progress and _in_notebook():
        from unlearnbench.cli.notebook_progress import NotebookProgress

        shown = NotebookProgress()
        yield shown.show, shown.place
    elif progress and sys.stderr.isatty():
        from unlearnbench.cli.progress import Bars

        with Bars() as bars:
            yield bars.show, bars.place
    else:
        yield lambda event: None, lambda folder: None


def _in_notebook() -> bool:
    import sys

    shell = sys.modules.get("IPython")
    found = None if shell is None else shell.get_ipython()
    return found is not None and type(found).__name__ == "ZMQInteractiveShell"
