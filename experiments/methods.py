"""Experiment 3: every method at 1x and the best at 4x, ranked within tracks, with what chance explains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.markdown import Finding, Section, blocks, paragraph, probability, table
from experiments.ranking import NO_CLAIM, Ranked, rank
from experiments.runs import Runs
from experiments.size import LEVELS, WORLDS, false_gains
from experiments.sweep import LONG, SEEDS
from unlearnbench.leaderboard.ranking import LEVEL
from unlearnbench.records import TRACKS, TWIN_KINDS, Interval, Result, Track
from unlearnbench.reports.formatting import duration, pct, point_span, points
from unlearnbench.scoring.null_vs_null import null_against_null
from unlearnbench.splits import Split

SIMULATED = 500
"""Experiments in each simulated world."""
Board = Mapping[Track, Sequence[Ranked]]


def section(runs: Runs) -> tuple[Section, Board]:
    """The tables of all methods and what follows from them; later sections refer to the ranking at 1x."""
    board = rank(runs, runs.methods, "1x")
    long = rank(runs, runs.long, f"{LONG:g}x")
    tables = [blocks(f"### Track `{track}`", _table(board[track])) for track in TRACKS if track in board]
    text = blocks(
        _preamble(),
        *tables,
        _chance(runs.split),
        _size(),
        blocks(f"### The best at {LONG:g}x", _long(runs.split, long)) if long else "",
        _time(runs),
    )
    findings = [*_nothing_converts(board), *_memory(board)]
    return Section("Every method", text, findings), board


def _preamble() -> str:
    return paragraph(
        f"Each method at the budget of the reference runs (1x), {SEEDS} seeds, 32 samples an item and seed. `gain` is",
        "the converted share less that of the null control (GRPO re-run), `over tuned null` that less GRPO's at its",
        "best learning rate; both with 95 % intervals over families and seeds. `p` is of the gain over the null",
        "control (the larger of a permutation of runs and a resampling of families); `Holm` is p adjusted for",
        f"the methods of the track, and a claim needs it below {LEVEL:g}, and both intervals above 0. `rank`: from the",
        "best to the worst that the tests of all pairs allow (Holm over the pairs). GRPO itself and the controls make",
        "no claim and take no part in the adjustment of p. `GRPO as large`: how many of the comparisons of GRPO's",
        "seeds with its other seeds reach this gain. Then what it broke: easy items lost, and the change of their mean",
        "rate; canaries converted (their stored answer",
        "is wrong); twins of converted items: changed numbers, other wording, same skill (g generalised, m",
        "memorised, u undecided).",
    )


def _table(rows: Sequence[Ranked]) -> str:
    head = ["method", "converted", "gain (points)", "over tuned null", "p", "Holm", "rank", "GRPO as large"]
    head += ["easy lost", "easy rate", "canaries", "twins", "tokens drawn", "FLOPs"]
    return table(head, [[row.name, *_cells(row)] for row in rows])


def _cells(row: Ranked) -> list[str]:
    result = row.run.result
    score, group, cost = result.conversion, result.groups["unlearnable"], result.cost
    tuned = score.tuned_null
    asked = result.budget.multiple or 1.0
    limit = (result.budget.limit or 0) / asked
    spent = cost.flops / len(result.seeds) / limit if limit else 0.0
    claim = row.name not in NO_CLAIM
    return [
        f"{group.converted} of {group.items}",
        _points(score.gain, score.interval_families),
        "-" if tuned is None else _points(tuned.gain, tuned.interval),
        probability(row.p),
        probability(row.adjusted) if claim else "",
        "-" if row.rank is None else f"{row.rank[0]}-{row.rank[1]}",
        "-" if row.nulls_as_large is None else f"{row.nulls_as_large} of {row.nulls}",
        f"{result.retention.easy_lost} of {result.retention.easy_items}",
        "-" if result.retention.easy_rate_change is None else points(result.retention.easy_rate_change),
        f"{result.canaries.converted} of {result.canaries.items}",
        _twins(result),
        f"{cost.generated_tokens / len(result.seeds) / 1e6:.2f} M",
        f"{spent:.2f}x",
    ]


def _points(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    short = points(value).removesuffix(" points")
    return short + ("" if interval is None else f" ({point_span(interval).removesuffix(' points')})")


def _twins(result: Result) -> str:
    return " ".join(result.twins[kind].verdict[0] if kind in result.twins else "-" for kind in TWIN_KINDS)


def _chance(split: Split) -> str:
    """The empirical distribution of GRPO against itself, and how often its intervals were wrong."""
    if split.control("null_control", "1x") is None:
        return ""
    told = null_against_null(split, SEEDS).method_against_rest
    missed = told.intervals - told.interval_families_holds_zero
    return paragraph(
        f"GRPO against itself (`unlearnbench compare --aa`): {told.comparisons} comparisons of {SEEDS} of the null",
        f"control's seeds with the rest give gains from {points(told.smallest_gain)} to {points(told.largest_gain)},",
        f"mean {points(told.mean_gain)}; {missed} of {told.intervals} intervals over families exclude 0. The",
        "comparisons share seeds, so this is a picture of chance and not a test.",
    )


def _size() -> str:
    """What the p-values are worth, by simulation."""
    told = [f"{pct(float(share))} at p < {p:.2g}" for share, p in zip(false_gains(SIMULATED), LEVELS, strict=True)]
    return paragraph(
        f"Where nothing is to be found the test finds little: in {SIMULATED * len(WORLDS):,} simulated experiments",
        "with micro's families, in worlds where the method is no better than GRPO, the share of gains found is",
        f"{', '.join(told)} (p is two-sided, so half of it is due).",
    )


def _long(split: Split, long: Board) -> str:
    control = split.control("null_control", f"{LONG:g}x")
    seeds = 0 if control is None else len(control.seeds)
    rows = [row for track in TRACKS for row in long.get(track, ())]
    head = ["method", "track", "converted", "gain (points)", "p", "Holm", "easy lost", "easy rate", "canaries", "twins"]
    body = []
    for row in rows:
        cells = _cells(row)
        shown = [*cells[:2], cells[3], cells[4], *cells[7:11]]
        body.append([row.name, row.run.result.method.track, *shown])
    chosen = paragraph(
        f"Chosen by their gain at 1x, of all tracks: a run at {LONG:g}x begins as the run at 1x does, with the same",
        f"seeds, so these gains are not independent of the choice. The null control at {LONG:g}x has {seeds} seeds,",
        "and there is no tuned null. Holm is within tracks, as above.",
    )
    return blocks(chosen, table(head, body, left=2))


def _time(runs: Runs) -> str:
    every = [*runs.methods.values(), *runs.long.values(), *runs.single.values()]
    seconds = sum(run.result.cost.seconds for run in every)
    seeds = sum(len(run.result.seeds) for run in every)
    return paragraph(
        f"All runs of this page together: {len(every)} runs, {seeds} seeds, {duration(seconds)} of training and",
        "evaluation on one core each, as they say of themselves (cost.seconds of result.json).",
    )


def _nothing_converts(board: Board) -> list[Finding]:
    rows = [row for row in board.get("verifier", ()) if row.name not in NO_CLAIM]
    if not rows:
        return []
    claim = (
        "Optimisation and sampling techniques do not resolve it: no method that knows only right or wrong converts them"
    )
    won = [row for row in rows if row.claimed]
    most = max(rows, key=lambda row: row.gain)
    top = most.run.result.conversion
    here = f"{len(won)} of {len(rows)} methods of track verifier gain significantly (Holm)"
    here += f": {', '.join(row.name for row in won)}" if won else ""
    here += f"; the largest gain is {_points(top.gain, top.interval_families)} points ({most.name})"
    if won:
        left = 1 - (most.run.result.groups["unlearnable"].conversion or 0.0)
        return [Finding(3, claim, f"{here}, which leaves {pct(left)} unconverted", "differs")]
    reach = max((row.run.result.conversion.interval_families or (0.0, 1.0))[1] for row in rows)
    here += f"; no interval over families reaches beyond {points(reach)}"
    return [Finding(3, claim, here, "agrees" if reach < 0.5 else "cannot be said")]


def _memory(board: Board) -> list[Finding]:
    """Whether a method of track verifier reads as converting by memorised answers."""
    rows = [row for row in board.get("verifier", ()) if row.name not in NO_CLAIM]
    if not rows:
        return []
    verdicts = {row.name: {twin.verdict for twin in row.run.result.twins.values()} for row in rows}
    suspects = [row.name for row in rows if row.claimed and "memorised" in verdicts[row.name]]
    canaries = [row.name for row in rows if row.run.result.canaries.converted]
    here = f"claims whose twins say memorised: {', '.join(suspects) or 'none'}"
    here += f"; canaries converted by: {', '.join(canaries) or 'none'}"
    claim = "No gain of track verifier is memorised answers"
    return [Finding(3, claim, here, "agrees" if not suspects and not canaries else "differs", of_paper=False)]
