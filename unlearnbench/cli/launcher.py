"""A command that a launcher has started several times: who stays for it, and what may not be said then."""

from __future__ import annotations

import click

from unlearnbench.workers.launcher_env import Launch, launched


def beside() -> Launch | None:
    """The processes that a launcher started this command with; None where there was no launcher.

    All but the first of each machine leave here, with status 0: that one starts workers in their place.
    """
    here = launched()
    if here is None:
        return None
    given = click.get_current_context().get_parameter_source
    for name in ("workers", "processes"):
        if given(name) != click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"--{name} is for one machine; under a launcher all its processes work together.")
    if not here.stays:
        raise click.exceptions.Exit(0)
    return here
