"""The command line: one short file per command family, loaded only when its command is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import click

from unlearnbench import __version__

# name: (module, object, what it does). The words stand here so that --help imports nothing else.
COMMANDS = {
    "eval": ("eval", "evaluate", "Train a method on a split, evaluate it, score it against the null control."),
    "plan": ("plan", "plan", "Say what a run will cost and the smallest gain it can detect."),
    "check": ("check", "check", "Run a method for two tiny steps: what it overrides, reads and costs."),
    "score": ("score", "score", "Score rollouts made anywhere, every verdict recomputed."),
    "curate": ("curate", "curate", "Label a pool for a policy by the protocol, or label from counts alone."),
    "diagnose": ("diagnose", "diagnose", "Compare the policy gradients of a split's items, group by group."),
    "verify": ("verify", "verify", "Judge one completion, or a file of them, against a gold answer."),
    "status": ("status", "status", "Say how far a run is, from its files."),
    "report": ("report", "report", "Rebuild report.html from a run's files."),
    "compare": ("compare", "compare", "Compare runs item by item, or the null control with itself (--aa)."),
    "methods": ("methods", "methods", "List the methods: what each does, its track, source, gain."),
    "new-method": ("methods", "new_method", "Write a commented skeleton of a method, and its test."),
    "new-split": ("new_split", "new_split", "Write a commented split.yaml, the start of a split of your own."),
    "splits": ("splits", "splits", "List, show, validate, build and publish splits."),
    "augment": ("augment", "augment", "Generate problems like a split's items, by any OpenAI-compatible endpoint."),
    "export": ("export", "export", "Write a split as files that TRL, verl and others read."),
    "submit": ("submit", "submit", "Bundle a run for the leaderboard, and verify the bundle."),
    "leaderboard": ("leaderboard", "leaderboard", "Verify bundles; score, rank and show the leaderboard."),
    "doctor": ("doctor", "doctor", "Say what this machine can run, and how to fix what is missing."),
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in any group, which would look for the likely word among commands that are imported."""
        if args[0] not in COMMANDS:
            raise click.NoSuchCommand(args[0], possibilities=COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="unlearnbench")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Does an RLVR algorithm convert the problems that GRPO cannot learn?"""


def run(arguments: Sequence[str]) -> int:
    """Run a command line; returns the exit status. Errors are one sentence on standard error."""
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        status = cli.main(words, prog_name="unlearnbench", standalone_mode=False)
    except click.UsageError as problem:
        problem.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _told("stopped; what is finished is kept: rerun the same command to resume", debug)
    except click.ClickException as problem:
        return _told(problem.format_message(), debug)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except BrokenPipeError:  # the reader of our output has left: nobody would see a message
        sys.stderr.close()
        return 1
    except Exception as problem:
        return _told(_sentence(problem), debug)
    return status if isinstance(status, int) else 0


def _sentence(problem: Exception) -> str:
    from unlearnbench.errors import UnlearnBenchError

    if isinstance(problem, UnlearnBenchError):
        return str(problem)
    if isinstance(problem, OSError):
        return f"{problem.strerror or problem} ({problem.filename or 'no file'}); fix this and run it again"
    return f"unexpected {type(problem).__name__}: {problem}; run it again with --debug and report the traceback"


def _told(sentence: str, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"unlearnbench: {sentence}", err=True)
    return 1
