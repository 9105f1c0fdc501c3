"""The working folder of a curation: its pool, checked before sampling, and what its rollouts depend on."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

from unlearnbench.curation.similar_probes import candidates, read_related
from unlearnbench.curation.validate import pool_problems
from unlearnbench.errors import DataError, RunError
from unlearnbench.io import files
from unlearnbench.policies.samplers.engine import TRANSFORMERS, Engine
from unlearnbench.records import SplitConfig, Twin
from unlearnbench.splits import Split, write_split
from unlearnbench.verifier import Verifier

TWINS = "twins.parquet"


def workspace(config_file: Path, work: Path, engine: Engine) -> tuple[Split, str]:
    """The pool as an unlabelled split in the work folder, and a hash of all that its training runs rest on.

    That is everything but the twins, which are measured and never trained on: where only they were changed, their own
    rollouts are removed and all others are kept. Raises DataError for a pool that cannot be labelled, RunError if the
    folder has rollouts of another pool, policy, protocol or sampler.
    """
    if config_file.name != "split.yaml":
        raise RunError(f"{config_file} must be named split.yaml and lie beside the pool's files; rename it")
    _check(config_file)
    pool = _copied(Split(config_file.parent), work / "pool")
    identity: dict[str, object] = {"seed": pool.config.seed, "hash": pool.hash_without(TWINS)}
    identity["twins"] = pool.config.files.get(TWINS)
    if engine != TRANSFORMERS:
        identity["sampler"] = asdict(engine)
    marker = work / "pool.json"
    drawn = any(path for name in ("base", "runs") for path in (work / name).rglob("*.parquet"))
    if drawn and marker.is_file():
        found = json.loads(marker.read_text())
        if {**found, "twins": None} != {**identity, "twins": None}:
            raise RunError(
                f"{work} has the curation of another pool, policy, protocol or sampler; name another --out, or remove "
                "that folder"
            )
        if found.get("twins") != identity["twins"]:
            _remove_twin_rollouts(work)
    files.write_json(marker, identity)
    return pool, str(identity["hash"])


def _check(config_file: Path) -> None:
    problems = pool_problems(config_file)
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]}{more}; `unlearnbench splits validate {config_file.parent}` lists all problems")


def _copied(source: Split, folder: Path) -> Split:
    fresh = {"group": None, "certified": None, "thin": False}
    items = [item.model_copy(update=fresh) for item in source.items]
    config: SplitConfig = source.config.model_copy(update={"files": {}, "budget": None})
    policy = source.policy_path
    if isinstance(policy, Path):
        shutil.copytree(policy, folder / "policy", dirs_exist_ok=True)
        path = config.base_policy.model_copy(update={"path": "policy"})
        config = config.model_copy(update={"base_policy": path})
    twins = list(source.twins) or _probe_candidates(source)
    return write_split(folder, config, items, twins=twins, canaries=list(source.canaries))


def _probe_candidates(source: Split) -> list[Twin]:
    """For a pool without twins, the similar problems beside it that may become probes."""
    if not (related := read_related(source.path)):
        return []
    with Verifier(rule=source.config.protocol.verifier_rule) as verifier:
        return candidates(source.items, related, verifier)


def _remove_twin_rollouts(work: Path) -> None:
    """Remove what was drawn of the twins: files, and folders of their shards."""
    for path in [*work.glob("base/*twins.*"), *work.glob("runs/*/*twins.*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
