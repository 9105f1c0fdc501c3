"""A soak of the verifier: random mutations of real completions, none of which may hang, crash or fail it.

python -m benchmarks.mutations --data ../shared/data --n 200000
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time
from collections import Counter
from pathlib import Path

from unlearnbench.verifier import Verifier

BATCH = 4096
PIECES = [
    *"{}()[]\\^_$%&,.;:!|=<>+-*/0123456789xyin ",
    *[
        "\\frac",
        "\\sqrt",
        "\\boxed{",
        "\\text{",
        "\\left(",
        "\\right)",
        "\\infty",
        "\\cup",
        "\\pm",
        "\\pi",
        "\\sum_{k=1}^{",
    ],
    *[
        "\\int_0^",
        "\\lim_{x\\to 0}",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "^{\\circ}",
        "!!",
        "\\binom",
        "\\overline{",
        "1e999",
        "\x00",
    ],
    *[
        "\ud800",
        "\u202e",
        "\u0301",
        "½",
        "√",
        "\u2212",
        "π",
        " or ",
        "9" * 50,
        "{" * 60,
        "^9^9^9",
        "\\log",
        "\\sin",
        "__import__('os')",
    ],
]


def completions(folder: Path) -> list[tuple[str, str]]:
    """Golds and completions: MATH-500's solutions, and the paper's generated problems' solutions with their answers."""
    pairs = []
    for line in (folder / "math" / "math500_test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pairs.append((row["answer"], row["solution"]))
    for file in sorted((folder / "paper_artifacts").glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")):
            answer = str(row["answer"])
            if answer and len(answer) < 200:
                pairs.append((answer, f"{row['solution']} \\boxed{{{answer}}}"))
    return pairs


def mutated(text: str, draw: random.Random) -> str:
    """One to six edits, most of them in or behind the last box."""
    for _ in range(draw.randint(1, 6)):
        low = max(text.rfind("boxed"), 0) if draw.random() < 0.8 else 0
        at = draw.randint(low, len(text))
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:at] + draw.choice(PIECES) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + draw.randint(1, 5) :]
        elif kind == 2:
            text = text[:at] + draw.choice(PIECES) + text[at + 1 :]
        elif kind == 3:
            text = text[:at] + text[at : at + draw.randint(1, 20)] * draw.randint(2, 30) + text[at:]
        else:
            end = min(len(text), at + draw.randint(2, 12))
            text = text[:at] + text[at:end][::-1] + text[end:]
    return text


def main() -> None:
    """Judge the mutations and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    real, draw = completions(args.data), random.Random(args.seed)
    reasons: Counter[str] = Counter()
    slowest: list[tuple[float, str, str]] = []
    start = time.monotonic()
    with Verifier(workers=args.workers) as verifier:
        for first in range(0, args.n, BATCH):
            pairs = []
            for _ in range(min(BATCH, args.n - first)):
                gold, text = draw.choice(real)
                pairs.append((gold, mutated(text, draw)))
            verdicts = verifier.verify_many(pairs)
            reasons.update(verdict.reason for verdict in verdicts)
            slowest += [(v.seconds, gold, v.answer or "") for (gold, _), v in zip(pairs, verdicts, strict=True)]
            slowest = sorted(set(slowest), reverse=True)[:8]
            failed = [pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict.correct is None]
            assert not failed, f"the verifier failed on {failed[0]!r}"
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{args.n} mutations of {len(real)} completions, seed {args.seed}: {seconds:.0f} s, {args.n / seconds:.0f}/s")
    print(", ".join(f"{n} {reason}" for reason, n in reasons.most_common()))
    print(f"peak memory: {peak:.0f} MiB here, {workers:.0f} MiB in the largest worker")
    for spent, gold, answer in slowest:
        print(f"{spent:.2f} s: gold {gold!r}, answer {answer[:100]!r}")


if __name__ == "__main__":
    main()
