"""`curate` from the outside, in real processes, on a small pool: labels, resume, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from unlearnbench import load_split
from unlearnbench.errors import RunError
from unlearnbench.io.files import write_json
from unlearnbench.splits import Split
from unlearnbench.workers.jobs import Compute


@pytest.mark.slow  # tests/test_similar_probes.py labels a smaller one
def test_curation_labels_a_pool_and_resumes(small_split: Split, tmp_path: Path) -> None:
    from unlearnbench import curate
    from unlearnbench.curation.audit.audit import audit
    from unlearnbench.curation.validate import validate
    from unlearnbench.splits import write_split

    pool = tmp_path / "pool"
    shutil.copytree(small_split.path / "policy", pool / "policy")
    samples = small_split.config.protocol.samples.model_copy(
        update={"base": 48, "after": 48, "certify": 32, "base_fresh": 32, "twins": 32}
    )
    protocol = small_split.config.protocol.model_copy(update={"runs": 2, "samples": samples})
    config = small_split.config.model_copy(update={"name": "again", "protocol": protocol, "files": {}})
    items = [item.model_copy(update={"group": None, "certified": None}) for item in small_split.items]
    write_split(pool, config, items, twins=list(small_split.twins), canaries=list(small_split.canaries))
    # what a curation leaves that failed before it drew anything, say for want of a policy: a fixed pool may go on
    write_json(tmp_path / "one/.curation/pool.json", {"hash": "of the pool before it was fixed", "seed": 0})
    one = curate(pool / "split.yaml", tmp_path / "one")
    assert validate(tmp_path / "one") == []
    assert one.config.budget is not None
    assert one.config.budget.flops_1x > 0
    assert {item.group for item in one.items} <= {
        "easy",
        "learnable",
        "unlearnable",
        "no_reward",
        "unstable",
        "boundary",
    }
    assert len(one.ids("easy")) >= 8  # ten easy items of micro went in
    audited = audit(tmp_path / "one")
    assert (audited.problems, audited.labels_checked) == ([], len(items))  # counts.parquet is what the rollouts say
    assert audited.rollouts == len(items) * (48 + 32)
    before, rollouts = one.hash, (tmp_path / "one/base_rollouts.parquet").read_bytes()
    shutil.rmtree(tmp_path / "one/.curation/runs/2/checkpoint")  # as if killed in its second run
    (tmp_path / "one/.curation/runs/2/after.0.parquet").unlink()
    assert curate(pool / "split.yaml", tmp_path / "one", compute=Compute(workers=1)).hash == before
    assert (tmp_path / "one/base_rollouts.parquet").read_bytes() == rollouts
    kept = _rollouts(tmp_path / "one/.curation")
    fixed = [twin.model_copy(update={"prompt": f"{twin.prompt} "}) for twin in small_split.twins]
    write_split(pool, config, items, twins=fixed, canaries=list(small_split.canaries))
    again = curate(pool / "split.yaml", tmp_path / "one", compute=Compute(workers=1))
    assert again.hash != before
    assert again.twins[0].prompt == fixed[0].prompt
    assert _rollouts(tmp_path / "one/.curation") == kept, "only twins were measured again"
    before = again.hash
    changed = config.model_copy(update={"seed": 99})
    write_split(pool, changed, items, twins=list(small_split.twins), canaries=list(small_split.canaries))
    with pytest.raises(RunError, match="of another pool, policy, protocol or sampler"):
        curate(pool / "split.yaml", tmp_path / "one")
    assert load_split(tmp_path / "one").hash == before


def _rollouts(work: Path) -> dict[str, int]:
    """When each file that does not depend on twins was written."""
    files = (*(work / "base").glob("base*.parquet"), *(work / "runs").rglob("*.safetensors"))
    files = (*files, *(path for name in ("after", "certify") for path in (work / "runs").rglob(f"{name}.*.parquet")))
    return {str(path): path.stat().st_mtime_ns for path in files}
