"""Do the rollouts that a bundle claims agree with those that its weights give? Counts, and random numbers, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.verification.count_tests import Cells, Difference, differences, draws_agree
from unlearnbench.leaderboard.verification.rollouts import Asked, Drawn
from unlearnbench.scoring.rates import Counts
from unlearnbench.splits import Split

PREFIX = 64
"""Characters of two completions that are compared: machines that round differently part in long texts sooner or later.
"""


def other_counts(said: Drawn, drawn: Drawn, split: Split) -> Iterator[str]:
    """Claimed counts that the weights would not give by chance (count_tests.FALSE_ALARM)."""
    asked = said.asked
    names = _parts(asked, split)
    known = list(dict.fromkeys((seed, name) for seed in asked.seeds for name in names))
    places = {part: place for place, part in enumerate(known)}
    part = np.array([places[seed, name] for seed in asked.seeds for name in names])
    for one in differences(Cells(said.correct, drawn.correct, asked.samples, asked.problem, part)):
        yield _words(one, asked, known)


def _words(one: Difference, asked: Asked, parts: Sequence[tuple[int, str]]) -> str:
    p = f"probability below {max(one.p, 1e-300):.0e} for draws of one policy"
    if one.kind == "problem":
        phase, name = asked.problems[one.place]
        where = f"{phase} {name!r}, all seeds"
    else:
        seed, part = parts[one.place]
        where = f"seed {seed}, {part}"
    if one.kind == "spread":
        return f"{where}: the weights solve other problems than the rollouts that are claimed ({p})"
    return (
        f"{where}: {one.claimed:,} of {one.rollouts:,} rollouts are claimed to be correct, and the weights give "
        f"{one.found:,} ({p})"
    )


def _parts(asked: Asked, split: Split) -> list[str]:
    """The set that each problem is tested with: its group, its kind of twin, or the canaries."""
    groups = {item.item_id: f"{item.group}" for item in split.items}
    kinds = {twin.twin_id: f"twins ({twin.kind})" for twin in split.twins}
    names = {"canary": {}, "twin": kinds, "eval": groups, "start": groups}
    heads = {"canary": "canaries", "twin": "", "eval": "group ", "start": "before training, group "}
    return [f"{heads[phase]}{names[phase].get(name, '')}" for phase, name in asked.problems]


def other_random_numbers(bundle: Bundle, said: Drawn, drawn: Drawn) -> Iterator[str]:
    """Seeds whose rollouts were not drawn with the seed's random numbers."""
    if bundle.first.config.engine.name != "transformers":
        return  # other samplers have random numbers of the device
    codes: dict[str, int] = {}
    one, other = (_prefixes(of, codes) for of in (said, drawn))
    cells = len(said.asked.problems)
    for place, seed in enumerate(said.asked.seeds):
        rows = slice(place * cells, (place + 1) * cells)
        if draws_agree(one[rows], other[rows]) is False:
            yield (
                f"the rollouts of seed {seed} agree with those drawn again from its weights no more than independent "
                "draws would: they were drawn with other random numbers, as those of another seed are"
            )


def _prefixes(of: Drawn, codes: dict[str, int]) -> Counts:
    """A code for the beginning of each rollout, shape (cells, samples)."""
    table = np.array([codes.setdefault(text[:PREFIX], len(codes)) for text in of.texts], np.int64)
    found: Counts = table[of.text]
    return found
