"""`unlearnbench splits`: what splits there are, what is in one, and whether a folder is a valid one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlearnbench.cli.splits_build import build, export, push
from unlearnbench.cli.splits_rewards import rewards_json, show_rewards

if TYPE_CHECKING:
    from unlearnbench.curation.audit.record import Audit, Share
    from unlearnbench.splits import Split

_SHOWN = 20
"""Lines of each kind on the terminal; JSON has them all."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@click.group(invoke_without_command=True)
@as_json
@click.pass_context
def splits(context: click.Context, as_json: bool) -> None:
    """List the shipped splits; show, validate, build or publish one."""
    if context.invoked_subcommand is None:
        _print_all(as_json)


@splits.command("list")
@as_json
def list_(as_json: bool) -> None:
    """The same list as `unlearnbench splits`."""
    _print_all(as_json)


def _print_all(as_json: bool) -> None:
    from unlearnbench.cli.console import print_sentence, print_table
    from unlearnbench.splits import load_split, shipped_splits

    rows = [_summary(load_split(name)) for name in shipped_splits()]
    if as_json:
        _print_json(rows)
    elif not rows:
        click.echo("No splits are shipped; `make micro` makes micro.")
    else:
        shown = ("unlearnable", "learnable", "easy")
        print_table(
            ["split", "items", *shown],
            [
                [
                    row["name"],
                    row["items"] if row["built"] else "not built",
                    *(row["groups"][g]["items"] for g in shown),
                ]
                for row in rows
            ],
            right=["items", *shown],
        )
        for row in rows:
            for group, of in row["released"].items():
                if not row["built"] and of["positions"]:
                    print_sentence(
                        f"{row['name']}: the {of['positions']} {group} items were released as positions; those that "
                        f"their text identifies are items once `unlearnbench splits build {row['name']}` has run"
                    )


for command in (build, export, push):
    splits.add_command(command)


@splits.command()
@click.argument("split")
@as_json
def show(split: str, as_json: bool) -> None:
    """Show a split: its groups, families, protocol, recipe and controls. SPLIT is a shipped name or a folder."""
    from unlearnbench.cli.console import print_sentence, print_table
    from unlearnbench.splits import load_split

    content = _description(load_split(split))
    if as_json:
        _print_json(content)
        return
    click.echo(f"{content['name']}: {content['description']}".strip().rstrip(":"))
    if content["built"]:
        sizes = ", ".join(f"{content[name]} {name}" for name in ("items", "twins", "canaries"))
        click.echo(f"{sizes} in {content['path']}")
        if not content["policy_built"]:
            click.echo(f"without its base policy, which `unlearnbench splits build {content['name']}` makes")
    else:
        click.echo(f"not built: the problem texts are to be fetched by `unlearnbench splits build {content['name']}`")
    print_table(
        ["group", "items", "certified", "thin"],
        [[group, of["items"], of["certified"], of["thin"]] for group, of in content["groups"].items() if of["items"]],
        right=["items", "certified", "thin"],
    )
    if content["built"]:
        groups = [group for group, of in content["groups"].items() if of["items"]]
        print_table(
            ["family", "items", *groups],
            [
                [family, of["items"], *(of["groups"].get(group, 0) for group in groups)]
                for family, of in content["families"].items()
            ],
            right=["items", *groups],
        )
    for name in ("protocol", "recipe", "base_policy", "budget"):
        print_sentence(f"{name.replace('_', ' ')}: {_listed(content[name]) or 'not stated'}")
    print_sentence(f"controls: {_controls_sentence(content['controls'])}")
    for group, of in content["released"].items():
        click.echo(f"{group}: {_extent(of)}")
    if content["training_rewards"]:
        show_rewards(content["training_rewards"])
    if content["missing"]:
        click.echo("what is missing, and what the labels do not say:")
        for sentence in content["missing"]:
            click.echo(f"- {sentence}")
    click.echo(f"labels: version {content['label_version']}, hash {content['hash']}")


@splits.command()
@click.argument("directory", metavar="DIR")
@click.argument("more", metavar="", nargs=-1, type=click.Path(path_type=Path))
@click.option("--audit", "audited", is_flag=True, help="Audit the verdicts too, over the base policy's rollouts.")
@click.option(
    "--rollouts",
    metavar="PATH...",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Files or folders to audit instead of the split's own; stored verdicts in them are compared with today's.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the audit as JSON.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes for algebra.")
@as_json
def validate(
    directory: str,
    more: tuple[Path, ...],
    audited: bool,
    rollouts: tuple[Path, ...],
    out: Path | None,
    workers: int,
    as_json: bool,
) -> None:
    """Check every file of a split against its hash, its schema and the others; exit 1 if anything is wrong."""
    if more and not rollouts:
        raise click.UsageError(f"Got unexpected extra argument ({more[0]}).")
    if not audited and (rollouts or out):
        raise click.UsageError("--rollouts and --out belong to --audit.")
    if audited:
        problems = _audited(directory, (*rollouts, *more), out, workers, as_json)
    else:
        from unlearnbench.cli.console import warn_of_golds
        from unlearnbench.curation import validate
        from unlearnbench.splits import find_split

        found = validate.inspect(find_split(directory))
        problems, ungradable = found.problems, list(found.ungradable)
        if as_json:
            _print_json({"valid": not problems, "problems": problems, "ungradable": ungradable})
        else:
            warn_of_golds(ungradable)
    if not as_json:
        click.echo("\n".join(problems) or "valid")
    if problems:
        raise SystemExit(1)


def _audited(directory: str, rollouts: Sequence[Path], out: Path | None, workers: int, as_json: bool) -> list[str]:
    """Show or write what the audit of a split says; returns what is wrong."""
    from unlearnbench.cli.progress import Bar
    from unlearnbench.curation.audit import audit
    from unlearnbench.io import files

    with Bar("auditing") as bar:
        found = audit.audit(directory, rollouts=rollouts, workers=workers, progress=bar.show)
    if out is not None:
        files.write_json(out, found)
    if as_json:
        _print_json({"valid": not found.problems, "problems": found.problems, "audit": found.model_dump(mode="json")})
    else:
        _show_audit(found)
    return list(found.problems)


def _show_audit(found: Audit) -> None:
    from unlearnbench.cli.console import print_table, warn_of_golds

    click.echo(
        f"{found.split}: {found.golds.n:,} gold answers verified, {found.golds.unverified:,} in vain; "
        f"{found.rollouts:,} base rollouts, {found.different:,} different"
    )
    warn_of_golds(found.golds.ungradable)
    print_table(
        ["group", "false negatives", "false positives", "unknown"],
        [
            [name, *map(_share, (of.false_negatives, of.false_positives, of.unknown))]
            for name, of in found.groups.items()
        ],
    )
    print_table(
        ["group", "accepted", "without answer (paper)", "cut off"],
        [
            [name, f"{of.accepted:,} of {of.rollouts:,}", *map(_share, (of.answerless, of.truncated))]
            for name, of in found.groups.items()
        ],
    )
    click.echo("the most frequent answer of each item:")
    print_table(
        ["group", "items", "median", "90 %", "above half", "is the gold"],
        [
            [
                *(name, of.guesses.items, _percent(of.guesses.median), _percent(of.guesses.ninetieth)),
                *(of.guesses.above_half, of.guesses.gold),
            ]
            for name, of in found.groups.items()
        ],
    )
    for told in found.disagreements[:_SHOWN]:
        ours, theirs = ("right", "wrong") if told.verifier else ("wrong", "right")
        click.echo(
            f"{told.item_id} ({told.group}): gold {told.gold!r}, verifier {ours} ({told.reason}), second grader "
            f"{theirs}, {told.count} times: ...{told.completion!r}"
        )
    if found.different_disagreements > _SHOWN:
        click.echo(f"and {found.different_disagreements - _SHOWN:,} more disagreements (--json, --out)")
    click.echo(f"{len(found.relabelled)} of {found.labels_checked:,} labels would differ by the second grader's counts")
    for row in found.relabelled[:_SHOWN]:
        click.echo(
            f"{row.item_id}: {row.group} by {row.correct} of {row.n}, {row.group_second} by {row.correct_second}"
        )
    hard = [guess for guess in found.guessable if guess.group != "easy"]  # an easy item's answer is mostly right
    for guess in hard[:_SHOWN]:
        right = "the gold" if guess.gold else "wrong"
        click.echo(f"{guess.item_id} ({guess.group}): {guess.count} of {guess.n} state {guess.answer!r}, {right}")
    if len(hard) > _SHOWN:
        click.echo(f"and {len(hard) - _SHOWN:,} more items that can be guessed (--json, --out)")
    if found.only_truncated:
        click.echo(f"fail only by length: {', '.join(found.only_truncated[:_SHOWN])}")
    if found.stored:
        click.echo(
            f"{found.stored.rollouts:,} stored verdicts in {found.stored.files:,} files ({found.stored.rows:,} rows): "
            f"{found.stored.differ:,} differ from today's; {found.stored.without:,} were null"
        )
        for stale in found.stored.differences:
            then, now = ("right", "wrong") if stale.stored else ("wrong", "right")
            click.echo(
                f"{stale.file}, row {stale.row}, {stale.problem_id}: gold {stale.gold!r}, {then} then, "
                f"{now} now ({stale.reason}), {stale.count} times: ...{stale.completion!r}"
            )


def _share(of: Share) -> str:
    if of.interval is None:
        return "-"
    low, high = of.interval
    return f"{of.count:,} of {of.n:,}\n{100 * low:.2g} to {100 * high:.2g} %"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _extent(of: Mapping[str, Any]) -> str:
    """What the released numbers of a group are: a lower bound of it or a sample, and how many are not indices."""
    told = f"{of['ids']} released ids, a {of['extent']}"
    if of["positions"]:
        told += f"; {of['positions']} released positions, {of['resolved']} of them resolved by text"
    return told


def _summary(split: Split) -> dict[str, Any]:
    from unlearnbench.records import GROUPS
    from unlearnbench.splits.manifest import built_of, released_of, waits, waits_for_policy

    groups = {}
    released, made, built = released_of(split.path), built_of(split.path), not waits(split.path)
    told = released.groups if released else {}
    for group in GROUPS:
        items = [item for item in split.items if item.group == group] if built else []
        certified = sum(item.certified is True for item in items)
        count = len(items) if built else max(len(told[group].ids), len(told[group].positions)) if group in told else 0
        groups[group] = {"items": count, "certified": certified, "thin": sum(item.thin for item in items)}
    return {
        "name": split.name,
        "description": split.config.description,
        "path": str(split.path),
        "built": built,
        "policy_built": not waits_for_policy(split.path),
        "items": len(split.items) if built else None,
        "groups": groups,
        "released": {
            group: {
                "ids": len(of.ids),
                "positions": len(of.positions),
                "resolved": len(made.resolved) if made and of.positions else 0,
                "extent": of.extent,
            }
            for group, of in told.items()
        },
        "missing": list(released.missing) if released else [],
        "base_policy": split.config.base_policy.model_dump(mode="json"),
        "label_version": split.config.label_version,
        "hash": split.hash,
    }


def _description(split: Split) -> dict[str, Any]:
    from unlearnbench.splits.manifest import built_of, released_of

    stated = split.config.model_dump(mode="json")
    summary, families = _summary(split), {}
    built, released, made = summary["built"], released_of(split.path), built_of(split.path)
    for family in sorted(set(split.families().values())) if built else ():
        items = [item for item in split.items if item.family == family]
        groups = Counter(item.group for item in items if item.group)
        families[family] = {"items": len(items), "groups": dict(sorted(groups.items()))}
    twins, canaries = (split.twins, split.canaries) if built else ((), ())
    return summary | {
        "families": families,
        "twins": len(twins),
        "twin_kinds": dict(sorted(Counter(twin.kind for twin in twins).items())),
        "canaries": len(canaries),
        "protocol": stated["protocol"],
        "recipe": stated["recipe"],
        "budget": stated["budget"],
        "controls": _controls(split),
        "provenance": stated["provenance"],
        "licence": stated["licence"],
        "seeds": list(released.seeds) if released else [],
        "build": made.model_dump(mode="json") if made else None,
        "training_rewards": rewards_json(split) if built else None,
    }


def _controls(split: Split) -> dict[str, Any]:
    """Seeds and hash of each shipped control; the null control by budget multiple, the tuned by learning rate."""
    found: dict[str, Any] = {"null_control": {}, "tuned_null": {}, "positive_control": None}
    for folder in sorted((split.path / "null_control").glob("*/")):
        if control := split.control("null_control", folder.name):
            found["null_control"][folder.name] = {"seeds": list(control.seeds), "hash": control.hash}
    for multiple, control in sorted(split.tuned_nulls().items()):
        found["tuned_null"][f"{multiple:g}"] = {"seeds": list(control.seeds), "hash": control.hash}
    if control := split.control("positive_control"):
        found["positive_control"] = {"seeds": list(control.seeds), "hash": control.hash}
    return found


def _controls_sentence(controls: Mapping[str, Any]) -> str:
    """Which controls are shipped, with how many seeds."""
    told = [f"null control at {name}, {len(of['seeds'])} seeds" for name, of in controls["null_control"].items()]
    told += [
        f"GRPO at {name}x the learning rate, {len(of['seeds'])} seeds" for name, of in controls["tuned_null"].items()
    ]
    if (of := controls["positive_control"]) is not None:
        told.append(f"positive control, {len(of['seeds'])} seeds")
    return "; ".join(told) or "none"


def _listed(value: Any) -> str:
    """A setting as words: `steps 300, sampling (temperature 0.7, top_p 0.95)`."""
    if isinstance(value, Mapping):
        inner = [(name, of) for name, of in value.items() if of is not None]
        return ", ".join(
            f"{name} ({_listed(of)})" if isinstance(of, Mapping) else f"{name} {_listed(of)}" for name, of in inner
        )
    if isinstance(value, list | tuple):
        return " and ".join(map(_listed, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
