"""The option `--ray` of the commands that run jobs."""

from __future__ import annotations

import click

ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help="Run the jobs on a Ray cluster: auto, HOST:PORT or ray://HOST:10001; without ADDRESS one is started here.",
)
