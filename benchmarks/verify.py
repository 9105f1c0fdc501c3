r"""The verifier, beside plain math-verify: a file through the whole command, and hard pairs one by one.

    python -m benchmarks.verify [--data DIR] [--rows 100000] [--repeats 5] [--sample 1000]

Without `--data` the completions are those of `benchmarks.score`: short solutions of `micro`, half of them edited.
With it they are real texts that the folder holds: `math/math500_test.jsonl` (`solution`, `answer`) and
`paper_artifacts/*.json` (the same fields, lists). Each problem has four completions, its own solution and three of
other problems, and rows are drawn from these, so that as many pairs of gold and answer repeat as in training.

The hard pairs are wrong by a sign or a factor, so nothing but algebra or numbers can tell: sums of radicals,
logarithms, products of sines and cosines, powers of binomials, sums of fractions. math-verify is used as its README
does, `verify(parse(gold), parse(completion))`, golds parsed once each, with its own time limit.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import described
from benchmarks.process import Ended, elsewhere, ended, median
from benchmarks.score import completions
from benchmarks.turns import Target, judged, progress, table

FORMATS = (("jsonl", "jsonl"), ("jsonl", "parquet"), ("parquet", "jsonl"), ("parquet", "parquet"))
LARGER = 10
PROBLEMS = 1_000
"""Of real ones, half of them MATH-500's; with four completions each, 100,000 rows hold about 4,000 different pairs."""


@dataclass(frozen=True)
class Judged:
    """What one side did with some pairs: seconds, and how many it accepted, refused, and could not answer."""

    seconds: float
    accepted: int
    refused: int
    unanswered: int


@dataclass(frozen=True)
class Hard:
    """A gold answer, an equal form of it, and one that is wrong by a sign or a factor."""

    kind: str
    gold: str
    right: str
    wrong: str


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the verifier, beside math-verify.")
    parser.add_argument("--data", type=Path, help="a folder with math/ and paper_artifacts/ (see above)")
    parser.add_argument("--rows", type=int, default=100_000, help="rollouts of a file; one file has ten times as many")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--sample", type=int, default=1_000, help="rollouts that math-verify judges")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="benchmark-verify-") as place:
        folder = Path(place)
        progress("writing the files")
        different = elsewhere(write_rollouts, folder / "rows.jsonl", asked.rows, asked.data)
        elsewhere(write_rollouts, folder / "larger.jsonl", LARGER * asked.rows, asked.data)
        elsewhere(to_parquet, folder / "rows.jsonl", folder / "rows.parquet")
        runs: dict[tuple[str, str], list[Ended]] = {pair: [] for pair in FORMATS}
        theirs: list[Judged] = []
        hard_ours: list[Judged] = []
        hard_theirs: list[Judged] = []
        for turn in range(asked.repeats):
            for source, out in FORMATS:
                progress(f"turn {turn + 1} of {asked.repeats}: {source} to {out}")
                runs[source, out].append(command(folder / f"rows.{source}", folder / f"out.{out}"))
            for what, side, values in (
                ("math-verify", elsewhere_sampled(folder / "rows.jsonl", asked.sample), theirs),
                ("hard pairs", lambda: elsewhere(ours_on, hard_pairs()), hard_ours),
                ("hard pairs, math-verify", lambda: elsewhere(theirs_on, hard_pairs()), hard_theirs),
            ):
                progress(f"turn {turn + 1} of {asked.repeats}: {what}")
                values.append(side())
        larger = {}
        for source, out in FORMATS[:2]:
            progress(f"ten times the rows: {source} to {out}")
            larger[source, out] = command(folder / f"larger.{source}", folder / f"out.{out}")
        progress("")

        packages = ("math-verify", "latex2sympy2-extended", "sympy", "python-flint", "pyarrow")
        print(f"{described(*packages)}; medians of {asked.repeats} runs in turn\n")
        texts = "short solutions of `micro`, edited" if asked.data is None else "real solutions"
        print(f"Completions: {texts}; of {asked.rows:,} pairs of gold and completion {different:,} are different.\n")
        rows = [line(f"verify, {a} to {b}", asked.rows, median(done)) for (a, b), done in runs.items()]
        rows += [line(f"verify, {a} to {b}, once", LARGER * asked.rows, done) for (a, b), done in larger.items()]
        theirs_seconds = statistics.median(side.seconds for side in theirs)
        their_rate = asked.sample / theirs_seconds
        rows.append(["math-verify", f"{asked.sample:,}", f"{theirs_seconds:.2f}", "", f"{their_rate:,.0f}", ""])
        print(table(["what", "rollouts", "s", "processor s", "rollouts/s", "peak MiB"], rows))

        rates = {}
        print(f"\n{len(hard_pairs())} hard pairs, all wrong, on one core:\n")
        rows = []
        for name, sides in (("Verifier(workers=1)", hard_ours), ("math-verify", hard_theirs)):
            rates[name] = len(hard_pairs()) / statistics.median(side.seconds for side in sides)
            last = sides[-1]
            rows.append([name, f"{rates[name]:,.1f}", f"{last.accepted}", f"{last.refused}", f"{last.unanswered}"])
        print(table(["what", "pairs/s", "accepted", "refused", "at the time limit"], rows))
        print()
        rate = asked.rows / median(runs["jsonl", "jsonl"]).seconds
        most = max(done.mebibytes for done in larger.values())
        print(
            judged(
                [
                    Target("rollouts/s through the command, jsonl", rate, 22_000, digits=0),
                    Target("the same over math-verify's", rate / their_rate, 20, digits=1),
                    Target("hard pairs/s over math-verify's", rates["Verifier(workers=1)"] / rates["math-verify"], 5),
                    Target("wrong pairs accepted", hard_ours[-1].accepted, 0, at_most=True, digits=0),
                    Target("peak memory in MiB with ten times the rows", most, 512, at_most=True, digits=0),
                ]
            )
        )


def line(name: str, rows: int, run: Ended) -> list[str]:
    """One row of the table."""
    cells = (f"{run.seconds:.2f}", f"{run.processor_seconds:.2f}", f"{rows / run.seconds:,.0f}", f"{run.mebibytes:.0f}")
    return [name, f"{rows:,}", *cells]


def command(source: Path, out: Path) -> Ended:
    """The whole command from nothing."""
    out.unlink(missing_ok=True)
    return ended([sys.executable, "-m", "unlearnbench", "verify", "--file", str(source), "--out", str(out)])


# --- completions ----------------------------------------------------------------------------------------------


def write_rollouts(path: Path, rows: int, data: Path | None) -> int:
    """Rows with gold and completion as jsonl; returns how many different pairs are among them."""
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
    """Golds of real problems, each with its solution and with three of others."""
    problems = [json.loads(text) for text in (data / "math" / "math500_test.jsonl").open(encoding="utf-8")]
    for path in sorted((data / "paper_artifacts").glob("*.json")):
        problems += json.loads(path.read_text(encoding="utf-8"))
    texts = [(str(row["answer"]), str(row["solution"])) for row in problems]
    told = [(gold, boxed(solution, gold)) for gold, solution in texts if gold.strip()]
    chosen = told[:500] + rng.sample(told[500:], min(PROBLEMS - 500, len(told) - 500))
    for gold, solution in chosen:
        yield gold, solution
        for _, other in rng.sample(chosen, 3):
            yield gold, other


def boxed(solution: str, answer: str) -> str:
    """A solution that states its answer as the rule wants it."""
    return solution if "\\boxed" in solution else f"{solution}\n\nThe answer is $\\boxed{{{answer.strip('$')}}}$."


def to_parquet(source: Path, path: Path) -> None:
    """The same rows as parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.open(encoding="utf-8") as lines:
        pq.write_table(pa.Table.from_pylist([json.loads(text) for text in lines]), path)


def elsewhere_sampled(path: Path, sample: int) -> Callable[[], Judged]:
    """math-verify on a random sample of a file's rows, in a fresh process."""
    return lambda: elsewhere(theirs_on_rows, path, sample)


def theirs_on_rows(path: Path, sample: int) -> Judged:
    """math-verify on rows drawn at random, their golds parsed once each."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(text) for text in lines]
    return theirs_on(
        [(row["gold"], row["completion"]) for row in random.Random(1).sample(rows, min(sample, len(rows)))]
    )


# --- the two sides --------------------------------------------------------------------------------------------


def theirs_on(pairs: Sequence[tuple[str, str]]) -> Judged:
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
        except Exception:  # what cannot be compared is refused, as without raise_on_error
            found[False] += 1
    return Judged(time.perf_counter() - began, found[True], found[False], found[None])


def ours_on(pairs: Sequence[tuple[str, str]]) -> Judged:
    """A fresh verifier with one worker, which has been started."""
    from unlearnbench.verifier import UNGRADABLE, Verifier

    with Verifier(workers=1) as verifier:
        verifier.verify("\\sqrt{x^2+1}", "\\boxed{\\sqrt{1+x\\cdot x}}")
        began = time.perf_counter()
        verdicts = verifier.verify_many(pairs)
        seconds = time.perf_counter() - began
    unanswered = sum(verdict.correct is None or verdict.reason in UNGRADABLE for verdict in verdicts)
    accepted = sum(verdict.correct is True for verdict in verdicts)
    return Judged(seconds, accepted, len(verdicts) - accepted - unanswered, unanswered)


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


if __name__ == "__main__":
    main()
