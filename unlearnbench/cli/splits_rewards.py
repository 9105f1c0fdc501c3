"""`unlearnbench splits show`: the rewards of a released training run, by group and quarter of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unlearnbench.splits import Split

_SHOWN = 20
"""Ids on the terminal; JSON has them all."""


def rewards_json(split: Split) -> dict[str, Any] | None:
    """What the released run of a built split shows, as JSON; None where there is none."""
    from unlearnbench.scoring.released_run import released_run
    from unlearnbench.splits.manifest import released_of

    released, run = released_of(split.path), released_run(split)
    if run is None or released is None or released.release is None or released.release.rewards is None:
        return None
    return {
        "about": released.release.rewards.about,
        "steps": run.steps,
        "items": run.items,
        "unknown": run.unknown,
        "groups": {
            name: {
                "items": of.items,
                "rollouts": of.rollouts,
                "quarters": [_known(value) for value in of.quarters.tolist()],
                "steps": of.steps.tolist(),
                "curve": [_known(value) for value in of.curve.tolist()],
            }
            for name, of in run.groups.items()
        },
        "no_reward": list(run.no_reward),
    }


def show_rewards(told: Mapping[str, Any]) -> None:
    """The same on the terminal."""
    from unlearnbench.cli.console import print_table
    from unlearnbench.scoring.released_run import PARTS

    click.echo(f"rewards in training ({told['about']}): {told['steps']} steps, {told['items']:,} prompts")
    quarters = [f"quarter {number}" for number in range(1, PARTS + 1)]
    print_table(
        ["mean reward", "items", "rollouts", *quarters],
        [
            [
                *(name, of["items"], f"{of['rollouts']:,}"),
                *("-" if value is None else f"{value:.3f}" for value in of["quarters"]),
            ]
            for name, of in told["groups"].items()
        ],
        right=["items", "rollouts", *quarters],
    )
    if told["unknown"]:
        click.echo(f"{told['unknown']:,} ids of the file are no items of this split, and in no group")
    ids = told["no_reward"]
    some = f": {', '.join(ids[:_SHOWN])}{' ... (--json has all)' if len(ids) > _SHOWN else ''}" if ids else ""
    click.echo(f"{len(ids):,} items without any reward in this run{some}")


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
