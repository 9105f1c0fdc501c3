r"""The verifier beside plain math-verify (a file through the whole command, hard pairs one by one), and its robustness.

    python -m benchmarks.verify [speed] [--data DIR] [--rows 100000] [--repeats 5] [--sample 1000]
    python -m benchmarks.verify mutations --data DIR [--n 200000] [--seed 0]

Without `--data` the completions are those of `benchmarks.score`: short solutions of `micro`, half of them edited.
With it they are real texts from that folder: `math/math500_test.jsonl` (`solution`, `answer`) and
`paper_artifacts/*.json` (the same fields, lists). Each problem has four completions, its own solution and three of
other problems, and rows are drawn from these, so that as many pairs of gold and answer repeat as in training.

The hard pairs are wrong by a sign or a factor, so only algebra or numbers can detect it: sums of radicals,
logarithms, products of sines and cosines, powers of binomials, sums of fractions. math-verify is used as its README
does, `verify(parse(gold), parse(completion))`, golds parsed once each, with its own time limit.

`mutations`: random edits of real completions, none of which may hang, crash or break the verifier.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measurement import (
    Target,
    Usage,
    described,
    in_fresh_process,
    median_usage,
    progress,
    run_command,
    table,
    target_table,
)
from benchmarks.score import completions

FORMATS = (("jsonl", "jsonl"), ("jsonl", "parquet"), ("parquet", "jsonl"), ("parquet", "parquet"))
LARGER = 10
PROBLEMS = 1_000
"""Real problems, half of them MATH-500's; with four completions each, 100,000 rows have about 4,000 different pairs."""


@dataclass(frozen=True)
class Graded:
    """How one side graded some pairs: seconds, and how many it accepted, refused, and could not answer."""

    seconds: float
    accepted: int
    refused: int
    unanswered: int


@dataclass(frozen=True)
class Turn:
    """One turn: the command for each pair of formats, math-verify on a sample of the rows, and both on hard pairs."""

    commands: dict[tuple[str, str], Usage]
    theirs: Graded
    hard_ours: Graded
    hard_theirs: Graded


@dataclass(frozen=True)
class Hard:
    """A gold answer, an equal form of it, and one that is wrong by a sign or a factor."""

    kind: str
    gold: str
    right: str
    wrong: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the verifier beside math-verify, or try to break it.")
    parser.add_argument("what", nargs="?", default="speed", choices=("speed", "mutations"))
    parser.add_argument("--data", type=Path, help="a folder with math/ and paper_artifacts/ (see above)")
    parser.add_argument("--rows", type=int, default=100_000, help="rollouts of a file; one file has ten times as many")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--sample", type=int, default=1_000, help="rollouts that math-verify grades")
    parser.add_argument("--n", type=int, default=200_000, help="mutations (default 200000)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the mutations (default 0)")
    asked = parser.parse_args()
    if asked.what == "speed":
        with tempfile.TemporaryDirectory(prefix="benchmark-verify-") as place:
            time_verifier(Path(place), asked)
    elif asked.data is None:
        parser.error("mutations need --data, the folder of real completions to mutate")
    else:
        try_mutations(asked.data, asked.n, asked.seed)


# --- speed ------------------------------------------------------------------------------------------------------------


def time_verifier(folder: Path, asked: argparse.Namespace) -> None:
    """Run the command and both verifiers in turn, and print the tables."""
    progress("writing the files")
    different = in_fresh_process(write_rollouts, folder / "rows.jsonl", asked.rows, asked.data)
    in_fresh_process(write_rollouts, folder / "larger.jsonl", LARGER * asked.rows, asked.data)
    in_fresh_process(to_parquet, folder / "rows.jsonl", folder / "rows.parquet")
    turns = []
    for number in range(asked.repeats):
        progress(f"turn {number + 1} of {asked.repeats}")
        turns.append(
            Turn(
                {(a, b): command(folder / f"rows.{a}", folder / f"out.{b}") for a, b in FORMATS},
                in_fresh_process(theirs_on_rows, folder / "rows.jsonl", asked.sample),
                in_fresh_process(ours_on, hard_pairs()),
                in_fresh_process(theirs_on, hard_pairs()),
            )
        )
    larger = {}
    for a, b in FORMATS[:2]:
        progress(f"ten times the rows: {a} to {b}")
        larger[a, b] = command(folder / f"larger.{a}", folder / f"out.{b}")
    progress("")

    packages = ("math-verify", "latex2sympy2-extended", "sympy", "python-flint", "pyarrow")
    print(f"{described(*packages)}; medians of {asked.repeats} runs in turn\n")
    texts = "short solutions of `micro`, edited" if asked.data is None else "real solutions"
    print(f"Completions: {texts}; of {asked.rows:,} pairs of gold and completion {different:,} are different.\n")
    runs = {pair: median_usage([turn.commands[pair] for turn in turns]) for pair in FORMATS}
    rows = [line(f"verify, {a} to {b}", asked.rows, run) for (a, b), run in runs.items()]
    rows += [line(f"verify, {a} to {b}, once", LARGER * asked.rows, run) for (a, b), run in larger.items()]
    their_seconds = statistics.median(turn.theirs.seconds for turn in turns)
    their_rate = asked.sample / their_seconds
    rows.append(["math-verify", f"{asked.sample:,}", f"{their_seconds:.2f}", "", f"{their_rate:,.0f}", ""])
    print(table(["what", "rollouts", "s", "processor s", "rollouts/s", "peak MiB"], rows))

    pairs = len(hard_pairs())
    print(f"\n{pairs} hard pairs, all wrong, on one core:\n")
    ours = pairs / statistics.median(turn.hard_ours.seconds for turn in turns)
    theirs = pairs / statistics.median(turn.hard_theirs.seconds for turn in turns)
    rows = [
        [name, f"{rate:,.1f}", f"{last.accepted}", f"{last.refused}", f"{last.unanswered}"]
        for name, rate, last in (
            ("Verifier(workers=1)", ours, turns[-1].hard_ours),
            ("math-verify", theirs, turns[-1].hard_theirs),
        )
    ]
    print(table(["what", "pairs/s", "accepted", "refused", "at the time limit"], rows))
    print()
    rate = asked.rows / runs["jsonl", "jsonl"].seconds
    most = max(run.mebibytes for run in larger.values())
    print(target_table([
        Target("rollouts/s through the command, jsonl", rate, 22_000, digits=0),
        Target("the same over math-verify's", rate / their_rate, 20, digits=1),
        Target("hard pairs/s over math-verify's", ours / theirs, 5),
        Target("wrong pairs accepted", turns[-1].hard_ours.accepted, 0, at_most=True, digits=0),
        Target("peak memory in MiB with ten times the rows", most, 512, at_most=True, digits=0),
    ]))  # fmt: skip


def line(name: str, rows: int, run: Usage) -> list[str]:
    """One row of the table."""
    cells = (f"{run.seconds:.2f}", f"{run.processor_seconds:.2f}", f"{rows / run.seconds:,.0f}", f"{run.mebibytes:.0f}")
    return [name, f"{rows:,}", *cells]


def command(source: Path, out: Path) -> Usage:
    """`unlearnbench verify --file`, with no output of an earlier run."""
    out.unlink(missing_ok=True)
    return run_command([sys.executable, "-m", "unlearnbench", "verify", "--file", str(source), "--out", str(out)])


# --- completions ------------------------------------------------------------------------------------------------------


def write_rollouts(path: Path, rows: int, data: Path | None) -> int:
    """Write rows with gold and completion as jsonl; returns how many pairs are different."""
    rng = random.Random(0)
    pairs = list(micros(rng)) if data is None else list(reals(data, rng))
    different = set()
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            gold, completion = rng.choice(pairs)
            different.add((gold, completion))
            row = {"id": number, "seed": number % 3, "gold": gold, "completion": completion}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(different)


def micros(rng: random.Random) -> Iterator[tuple[str, str]]:
    """Golds of `micro`, each with 16 completions."""
    from unlearnbench.splits import load_split

    items = load_split("micro").items
    lines = [item.solution for item in items]
    for item in items:
        for text in completions(item, lines, 16, rng):
            yield item.answer, text


def reals(data: Path, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Golds of real problems, each with its own solution and three of other problems."""
    known = solutions(data)
    chosen = known[:500] + rng.sample(known[500:], min(PROBLEMS - 500, len(known) - 500))
    for gold, solution in chosen:
        yield gold, solution
        for _, other in rng.sample(chosen, 3):
            yield gold, other


def solutions(data: Path) -> list[tuple[str, str]]:
    """Gold answers, each with a solution that ends in it: MATH-500's problems, then the paper's generated ones."""
    problems = [json.loads(text) for text in (data / "math" / "math500_test.jsonl").open(encoding="utf-8")]
    for path in sorted((data / "paper_artifacts").glob("*.json")):
        problems += json.loads(path.read_text(encoding="utf-8"))
    texts = [(str(row["answer"]), str(row["solution"])) for row in problems]
    return [(gold, boxed(solution, gold)) for gold, solution in texts if gold.strip()]


def boxed(solution: str, answer: str) -> str:
    """The solution, with its answer in a box."""
    return solution if "\\boxed" in solution else f"{solution}\n\nThe answer is $\\boxed{{{answer.strip('$')}}}$."


def to_parquet(source: Path, path: Path) -> None:
    """Write the same rows as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.open(encoding="utf-8") as lines:
        pq.write_table(pa.Table.from_pylist([json.loads(text) for text in lines]), path)


def theirs_on_rows(path: Path, sample: int) -> Graded:
    """math-verify on randomly sampled rows of a file, their golds parsed once each."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(text) for text in lines]
    return theirs_on(
        [(row["gold"], row["completion"]) for row in random.Random(1).sample(rows, min(sample, len(rows)))]
    )


# --- the two sides ----------------------------------------------------------------------------------------------------


def theirs_on(pairs: Sequence[tuple[str, str]]) -> Graded:
    """`verify(parse(gold), parse(completion))` in the main thread of a process, where its alarms work."""
    import logging

    from math_verify import parse, verify
    from math_verify.errors import TimeoutException

    logging.disable()  # it logs each time limit
    verify(parse("$\\frac{x}{2}$"), parse("$0.5x$"))  # first-use tables are not counted
    golds: dict[str, object] = {}
    found = {True: 0, False: 0, None: 0}
    began = time.perf_counter()
    for gold, completion in pairs:
        try:
            if gold not in golds:
                golds[gold] = parse(f"${gold}$")
            found[verify(golds[gold], parse(completion), raise_on_error=True)] += 1
        except (TimeoutException, TimeoutError):
            found[None] += 1
        except Exception:  # what it cannot compare it refuses, as without raise_on_error
            found[False] += 1
    return Graded(time.perf_counter() - began, found[True], found[False], found[None])


def ours_on(pairs: Sequence[tuple[str, str]]) -> Graded:
    """A new verifier with one worker, started before the clock."""
    from unlearnbench.verifier import UNGRADABLE, Verifier

    with Verifier(workers=1) as verifier:
        verifier.verify("\\sqrt{x^2+1}", "\\boxed{\\sqrt{1+x\\cdot x}}")
        began = time.perf_counter()
        verdicts = verifier.verify_many(pairs)
        seconds = time.perf_counter() - began
    unanswered = sum(verdict.correct is None or verdict.reason in UNGRADABLE for verdict in verdicts)
    accepted = sum(verdict.correct is True for verdict in verdicts)
    return Graded(seconds, accepted, len(verdicts) - accepted - unanswered, unanswered)


def hard_pairs() -> list[tuple[str, str]]:
    """Golds, and completions that are wrong."""
    return [(pair.gold, f"\\boxed{{{pair.wrong}}}") for pair in hard()]


def hard() -> list[Hard]:
    """Thirteen of each kind, always the same ones."""
    rng = random.Random(0)
    found: dict[str, Hard] = {}
    for make in (radicals, logarithms, waves, powers, fractions):
        size = len(found) + 13
        while len(found) < size:
            pair = make(rng)
            found[pair.gold] = pair
    return list(found.values())


def radicals(rng: random.Random) -> Hard:
    """sqrt(a) + sqrt(b), and the root of its square with another sign inside."""
    a, b = rng.sample([2, 3, 5, 6, 7, 10, 11, 13, 14, 15, 17, 19], 2)
    form = f"\\sqrt{{{a + b}{{}}2\\sqrt{{{a * b}}}}}"
    return Hard("radicals", f"\\sqrt{{{a}}}+\\sqrt{{{b}}}", form.replace("{}", "+"), form.replace("{}", "-"))


def logarithms(rng: random.Random) -> Hard:
    """A sum of logarithms, and one logarithm with a sign in it wrong."""
    a, n, c = rng.randint(2, 9), rng.randint(2, 5), rng.randint(2, 9)
    gold = f"\\ln(x+{a})+{n}\\ln(x)-\\ln({c})"
    return Hard("logarithms", gold, *(f"\\ln(\\frac{{x^{{{n}}}(x{sign}{a})}}{{{c}}})" for sign in "+-"))


def waves(rng: random.Random) -> Hard:
    """sin(kx) cos(mx), and the sum of sines with another sign."""
    m, k = sorted(rng.sample(range(1, 10), 2))
    forms = (f"\\frac{{\\sin({k + m}x){sign}\\sin({k - m}x)}}{{2}}" for sign in "+-")
    return Hard("waves", f"\\sin({k}x)\\cos({m}x)", *forms)


def powers(rng: random.Random) -> Hard:
    """(x + a)^n, and the polynomial with a coefficient's sign wrong."""
    from math import comb

    a, n, place = rng.choice([-5, -4, -3, -2, 2, 3, 4, 5]), rng.randint(4, 8), 0
    terms = [comb(n, k) * a**k for k in range(n + 1)]
    place = rng.randint(1, n)
    wrong = [-value if k == place else value for k, value in enumerate(terms)]
    return Hard("powers", f"(x{a:+})^{{{n}}}", polynomial(terms), polynomial(wrong))


def polynomial(coefficients: Sequence[int]) -> str:
    """From the highest power down."""
    degree = len(coefficients) - 1
    return "".join(f"{value:+}x^{{{degree - k}}}" for k, value in enumerate(coefficients)).lstrip("+")


def fractions(rng: random.Random) -> Hard:
    """A sum of two fractions, and the one fraction without a factor."""
    a, b = rng.sample(range(1, 10), 2)
    p, q = rng.sample(range(2, 8), 2)
    below = f"x^{{2}}{b - a:+}x-{a * b}" if a != b else f"x^{{2}}-{a * b}"
    right, wrong = (f"\\frac{{{p + q}x{constant:+}}}{{{below}}}" for constant in (p * b - q * a, p * b + q * a))
    return Hard("fractions", f"\\frac{{{p}}}{{x-{a}}}+\\frac{{{q}}}{{x+{b}}}", right, wrong)


# --- mutations --------------------------------------------------------------------------------------------------------

BATCH = 4096
PIECES = [
    *"{}()[]\\^_$%&,.;:!|=<>+-*/0123456789xyin ",
    *("\\frac", "\\sqrt", "\\boxed{", "\\text{", "\\left(", "\\right)", "\\infty", "\\cup", "\\pm", "\\pi"),
    *("\\int_0^", "\\lim_{x\\to 0}", "\\begin{pmatrix}", "\\end{pmatrix}", "^{\\circ}", "!!", "\\binom"),
    *("\\overline{", "1e999", "\x00", "\ud800", "\u202e", "\u0301", "½", "√", "\u2212", "π", " or ", "{" * 60),
    *("\\sum_{k=1}^{", "9" * 50, "^9^9^9", "\\log", "\\sin", "__import__('os')"),
]  # fmt: skip
"""What a mutation may insert."""


def try_mutations(data: Path, number: int, seed: int) -> None:
    """Grade mutations of real completions and print the reasons, the memory and the slowest.

    Raises SystemExit with the first that the verifier failed on.
    """
    from unlearnbench.verifier import Verifier

    real, rng = solutions(data), random.Random(seed)
    reasons: Counter[str] = Counter()
    slowest: list[tuple[float, str, str]] = []
    start = time.monotonic()
    with Verifier(workers=2) as verifier:
        for first in range(0, number, BATCH):
            drawn = [rng.choice(real) for _ in range(min(BATCH, number - first))]
            pairs = [(gold, mutated(text, rng)) for gold, text in drawn]
            verdicts = verifier.verify_many(pairs)
            for pair, verdict in zip(pairs, verdicts, strict=True):
                if verdict.correct is None:
                    raise SystemExit(f"the verifier failed on {pair!r}")
            reasons.update(verdict.reason for verdict in verdicts)
            slowest += [(v.seconds, gold, v.answer or "") for (gold, _), v in zip(pairs, verdicts, strict=True)]
            slowest = sorted(set(slowest), reverse=True)[:8]
    seconds = time.monotonic() - start
    here, worker = (
        resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"{number} mutations of {len(real)} completions, seed {seed}: {seconds:.0f} s, {number / seconds:.0f}/s")
    print(", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))
    print(f"peak memory: {here:.0f} MiB here, {worker:.0f} MiB in the largest worker")
    for spent, gold, answer in slowest:
        print(f"{spent:.2f} s: gold {gold!r}, answer {answer[:100]!r}")


def mutated(text: str, rng: random.Random) -> str:
    """One to six edits, most of them in or behind the last box."""
    for _ in range(rng.randint(1, 6)):
        low = max(text.rfind("boxed"), 0) if rng.random() < 0.8 else 0
        at = rng.randint(low, len(text))
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] + rng.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + rng.randint(1, 5) :]
        elif kind == 2:
            text = text[:at] + rng.choice(PIECES) + text[at + 1 :]
        elif kind == 3:
            text = text[:at] + text[at : at + rng.randint(1, 20)] * rng.randint(2, 30) + text[at:]
        else:
            end = min(len(text), at + rng.randint(2, 12))
            text = text[:at] + text[at:end][::-1] + text[end:]
    return text


if __name__ == "__main__":
    main()
