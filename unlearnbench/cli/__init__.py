"""The command line: one short file a command family, loaded only when its command is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from unlearnbench import __version__

# name: (module, object, what it does). The words stand here so that --help imports nothing else.
COMMANDS = {
    "eval": ("evaluate", "evaluate", "Train a method on a split, evaluate it, score it against the null control."),
    "check": ("check", "check", "Run a method for two tiny steps: what it overrides, reads and costs."),
    "curate": ("curate", "curate", "Label a pool for a policy by the protocol, or label from counts alone."),
    "verify": ("verify", "verify", "Judge one completion, or a file of them, against a gold answer."),
    "report": ("report", "report", "Rebuild report.html from a run's files."),
    "methods": ("methods", "methods", "List the methods with their track and source."),
    "new-method": ("methods", "new_method", "Write a commented skeleton of a method, and its test."),
    "splits": ("splits", "splits", "List, show and validate splits."),
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(f"unlearnbench.cli.{module}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="unlearnbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Does an RLVR algorithm convert the problems that GRPO cannot learn?"""


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line. Errors end with one sentence on standard error: status 2 for usage, 1 for the rest."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        status = cli.main(words, prog_name="unlearnbench", standalone_mode=False)
    except click.UsageError as problem:
        problem.show()
        sys.exit(2)
    except click.Abort:
        _end("stopped; what is finished is kept, and the same command goes on where it stopped", debug)
    except click.ClickException as problem:
        _end(problem.format_message(), debug)
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except (KeyboardInterrupt, BrokenPipeError):
        _end("stopped; what is finished is kept, and the same command goes on where it stopped", debug)
    except Exception as problem:
        from unlearnbench.errors import UnlearnBenchError

        if isinstance(problem, UnlearnBenchError):
            _end(str(problem), debug)
        if isinstance(problem, OSError):
            _end(f"{problem.strerror or problem}: {problem.filename or ''}; mend that and run it again", debug)
        if debug:
            raise
        _end(
            f"unexpected {type(problem).__name__}: {problem}; run it again with --debug and report the traceback",
            debug,
        )
    sys.exit(status if isinstance(status, int) else 0)


def _end(sentence: str, debug: bool) -> None:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"unlearnbench: {sentence}", err=True)
    sys.exit(1)
