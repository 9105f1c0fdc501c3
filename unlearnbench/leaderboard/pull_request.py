"""The text of the pull request that adds an entry, ready to be pasted."""

from __future__ import annotations

import json

from unlearnbench.leaderboard.bundles.address import BUNDLE, BundleRef
from unlearnbench.leaderboard.bundles.bundle import Bundle
from unlearnbench.leaderboard.editions import ENTRIES
from unlearnbench.leaderboard.verification import Verification
from unlearnbench.reports.formatting import plain, plural
from unlearnbench.reports.headline import verdict


def pull_request(bundle: Bundle, ref: BundleRef, found: Verification, entry: str, edition: str | None) -> str:
    """Title, body and the commands that make the branch, for a bundle that was verified.

    `entry` is the id; without an edition the text says how to find it.
    """
    result, statement = found.result or bundle.result, bundle.statement
    budget = "quick" if result.budget.multiple is None else f"{result.budget.multiple:g}x"
    trial = "" if result.comparable else ", not to be ranked"
    place = f"{ENTRIES.as_posix()}/{entry}/{edition or 'EDITION'}"
    told = ref.model_dump(mode="json") | {"address": ref.address or f"https://ADDRESS/{ref.file}"}
    body = [
        f"Title: Leaderboard: {plain(statement.name)} on {result.split} (track {result.method.track}, {budget}{trial})",
        "",
        plain(verdict(result).sentence),
        "",
        f"- bundle: `{ref.file}`, {ref.bytes:,} bytes, sha256 `{ref.sha256}`",
        f"- method: `{plain(result.method.name)}`, source sha256 `{result.method.source_hash}`",
        f"- split: {result.split}, `{result.split_hash}`; seeds {', '.join(map(str, result.seeds))}, "
        f"{result.samples} samples, scorer {result.scorer_version}",
        f"- authors: {plain(', '.join(statement.authors)) or 'not stated'}; {plain(statement.url or 'no address')}",
        "- configurations tried: "
        + (plural(statement.tried, "configuration") if statement.tried else "not stated, so not ranked"),
        f"- verified here: {found.rollouts:,} rollouts "
        + ("drawn again from its weights" if found.measured else "judged again, its weights not measured")
        + f" in {found.seconds:.0f} s",
        *(f"- {note}" for note in found.notes),
        "",
        "The weights, rollouts, counts and source in this bundle may be published under the repository's licence, and",
        "the source may be run to train the method again (leaderboard/RULES.md).",
        "",
        *([] if ref.address else [_UPLOAD.format(file=bundle.archive.path), ""]),
        "To open the pull request, in a clone of the repository:",
        *([] if edition else [_EDITION.format(hash=result.split_hash[:12])]),
        "",
        f"    git switch -c entry-{entry}",
        f"    mkdir -p {place} && cat > {place}/{BUNDLE} <<'END'",
        *(f"    {line}" for line in json.dumps(told, indent=2).splitlines()),
        "    END",
        f"    git add {place}/{BUNDLE} && git commit -m 'Leaderboard: {entry}' && git push origin entry-{entry}",
    ]
    return "\n".join(body)


_EDITION = """EDITION is the newest one of these labels ({hash}) in leaderboard/editions.json; run `submit` in the
clone, and it is filled in."""
_UPLOAD = """First put {file} where anybody can download it without an account: drag it into a comment of the pull
request or attach it to a release of your fork (https://...), or upload it to a data set on the Hugging Face Hub
(hf://datasets/OWNER/NAME@REVISION/FILE.zip). Write its address into bundle.json below, or give it to `submit`
by --address."""
