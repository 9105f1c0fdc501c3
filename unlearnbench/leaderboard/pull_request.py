"""The words of the pull request that brings an entry, ready to be pasted."""

from __future__ import annotations

from unlearnbench.leaderboard.bundle import Bundle
from unlearnbench.leaderboard.editions import ENTRIES
from unlearnbench.leaderboard.entries import BUNDLE, default_id
from unlearnbench.leaderboard.verification import Verification
from unlearnbench.reports.formatting import plain, plural
from unlearnbench.reports.headline import verdict


def pull_request(bundle: Bundle, found: Verification) -> str:
    """Title, body and the commands that make the branch, for a bundle that was verified."""
    result, statement = bundle.result, bundle.statement
    entry = default_id(result)
    budget = "quick" if result.budget.multiple is None else f"{result.budget.multiple:g}x"
    trial = "" if result.comparable else ", not to be ranked"
    place = f"{ENTRIES.as_posix()}/{entry}/{BUNDLE}"
    body = [
        f"Title: Leaderboard: {plain(statement.name)} on {result.split} (track {result.method.track}, {budget}{trial})",
        "",
        plain(verdict(result).sentence),
        "",
        f"- bundle: `{place}`, manifest sha256 `{bundle.sha256}`",
        f"- method: `{plain(result.method.name)}`, source sha256 `{result.method.source_hash}`",
        f"- split: {result.split}, `{result.split_hash}`; seeds {', '.join(map(str, result.seeds))}, "
        f"{result.samples} samples, scorer {result.scorer_version}",
        f"- authors: {plain(', '.join(statement.authors)) or 'not stated'}; {plain(statement.url or 'no address')}",
        "- configurations tried: "
        + (plural(statement.tried, "configuration") if statement.tried else "not stated, so not ranked"),
        f"- verified here: {found.rollouts:,} rollouts judged anew in {found.seconds:.0f} s",
        *(f"- {note}" for note in found.notes),
        "",
        "The rollouts, counts and source in this bundle may be published under the repository's licence, and the",
        "source may be run to train the method again (leaderboard/RULES.md).",
        "",
        "To open it, in a clone of the repository:",
        "",
        f"    git switch -c entry-{entry}",
        f"    mkdir -p {ENTRIES.as_posix()}/{entry} && cp {bundle.path} {place}",
        f"    git add {place} && git commit -m 'Leaderboard: {entry}' && git push origin entry-{entry}",
    ]
    return "\n".join(body)
