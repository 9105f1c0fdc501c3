"""What `augment` made of a real model's text: prints the counts of some of its folders and checks its filter in them.

python .ci/filtered.py FOLDER...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from unlearnbench.curation.augment.augment import Candidate, Summary
from unlearnbench.io.tables import read_json_record, read_records
from unlearnbench.records import RelatedProblem
from unlearnbench.verifier.extraction import stated_answer

COUNTS = ("generated", "compared", "agreed", "leaked")


def counts(folder: Path) -> dict[str, int]:
    """The counts of a folder whose table holds what agreed, and whose verdicts on whole numbers are right."""
    summary = read_json_record(folder / "augment.json", Summary)
    lines = [line for file in (folder / "items").iterdir() for line in file.read_text().splitlines()[:-1]]
    candidates = [Candidate.model_validate(json.loads(line)) for line in lines]
    rows = read_records(folder / f"{summary.settings.kind}.parquet", RelatedProblem)
    kept = [(row.prompt, row.answer, row.solution, row.leaked) for row in rows]
    agreed = [(one.question, one.answer, one.solution, one.leaked) for one in candidates if one.agrees]
    assert sorted(kept) == sorted(agreed), (kept, agreed)
    assert summary.generated == len(candidates), summary
    for one in candidates:
        boxed = stated_answer(one.second).answer
        assert one.compared == (boxed is not None), one
        if boxed is None or (boxed.isdecimal() and one.answer.isdecimal()):
            assert one.agrees == (boxed is not None and int(boxed) == int(one.answer)), one
    print(
        f"{summary.settings.kind}: {summary.items - summary.items_unread} of {summary.items} replies read, "
        f"{summary.generated} problems in them; {summary.compared} with a second answer, {summary.agreed} where both "
        f"agree, {summary.leaked} of them leaked; {summary.requests} requests, {summary.completion_tokens} tokens"
    )
    return {name: getattr(summary, name) for name in COUNTS}


if __name__ == "__main__":
    each = [counts(Path(folder)) for folder in sys.argv[1:]]
    total = {name: sum(one[name] for one in each) for name in COUNTS}
    # Seen with SmolLM2-135M-Instruct, 40 items of either kind: 62, 45 and 12. Floats that are rounded otherwise draw
    # other tokens, so far less is asked for.
    assert total["generated"] >= 20, total
    assert total["compared"] >= 10, total
    assert 1 <= total["agreed"] < total["compared"], total
