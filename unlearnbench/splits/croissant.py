"""Croissant metadata of a split, core and responsible AI (MLCommons, croissant 1.0 and RAI 1.0), from its own files.

What a split says of itself (split.yaml, parquet schemas, hashes) is put into the vocabulary that data-set searches and
reviewers read; nothing is stated here that a file does not hold, but for what the protocol says of every split.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unlearnbench.io import files
from unlearnbench.splits.split import Split

FILE = "croissant.json"
_WORDS = (
    "citeAs column conformsTo:dct equivalentProperty extract field fileProperty fileObject fileSet format includes "
    "isLiveDataset:isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated replace "
    "samplingRate separator source subField transform"
)
TABLES: Mapping[str, str] = {
    "items.parquet": "Problems with their measured labels: one a row.",
    "twins.parquet": "Held-out relatives of items, which no training may touch.",
    "counts.parquet": "Raw counts behind the labels: rollouts and right ones by item, phase and run.",
    "twin_counts.parquet": "The same for twins of unlearnable items.",
    "similar.parquet": "Generated problems like an item.",
    "sub_problems.parquet": "Generated problems that are a step of an item.",
}
COLUMNS: Mapping[str, str] = {
    "item_id": "Name of the problem.",
    "twin_id": "Name of the twin.",
    "problem_id": "Name of the generated problem.",
    "prompt": "The text that the policy is given.",
    "answer": "The gold that a verifier compares a stated answer with.",
    "solution": "A worked solution that ends in the gold.",
    "family": "What a problem has in common with others; intervals over families resample these.",
    "group": "Measured label: easy, learnable, unlearnable, no_reward, unstable or boundary.",
    "certified": "Whether fresh samples confirmed an unlearnable label; null where nothing was certified.",
    "thin": "Unlearnable with only 2 to 5 right rollouts in all.",
    "cause": "What the base policy's training text shows of such problems, where the problems are generated.",
    "depth": "Problems that are chained in it, where difficulty is an axis of the split.",
    "kind": "What a twin changes: numbers, wording, or both.",
    "probe": "Whether it is the twin that must be solved with its item.",
    "phase": "base, base_fresh, train, after or certify.",
    "run": "Reference run, or 0 for the base policy.",
    "n": "Rollouts.",
    "correct": "Right ones among them.",
    "best": "Largest mean reward of one step of the run.",
    "leaked": "It is a held-out probe, or its text is that of an item or a twin.",
}


def croissant(split: Split) -> dict[str, Any]:
    """The JSON-LD document of a split; paths are relative to its folder. Raises as reading the split does."""
    config = split.config
    tables = [name for name in TABLES if (split.path / name).is_file()]
    rest = [name for name in ("split.yaml", "canaries.json") if (split.path / name).is_file()]
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "name": f"UnlearnBench-{config.name}",
        "description": f"{config.description or config.name} One split of UnlearnBench: problems, a base policy, and "
        "for every problem a measured label: whether GRPO solves it, learns it, or is rewarded and does not.",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "citeAs": "UnlearnBench (CITATION.cff); The Unlearnability Phenomenon in RLVR for Language Models, "
        "arXiv:2605.16787",
        "license": config.licence or "Apache-2.0",
        "url": "https://arxiv.org/abs/2605.16787",
        "version": f"{config.schema_version}.{config.label_version}.0",
        "keywords": ["reinforcement learning", "RLVR", "GRPO", "language models", "benchmark"],
        **_responsible(split),
        "distribution": [_file(split.path, name) for name in (*tables, *rest)],
        "recordSet": [_record_set(split.path, name) for name in tables],
    }


def write_croissant(split: Split, folder: Path) -> None:
    """Write the document beside the split's files in `folder`."""
    files.write_json(folder / FILE, croissant(split))


def _context() -> dict[str, Any]:
    terms: dict[str, Any] = {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "sc": "https://schema.org/",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
    }
    for word in _WORDS.split():
        name, _, space = word.partition(":")
        terms[name] = f"{'dct' if space == 'dct' else 'cr'}:{name}"
    return terms


def _responsible(split: Split) -> dict[str, Any]:
    """The responsible AI part: how the data were made, who labelled them, and their intended use."""
    config, protocol = split.config, split.config.protocol
    n = protocol.samples
    judge = "the tasks' own scorers and our verifier" if protocol.verifier == "reasoning_gym" else "our verifier"
    return {
        "rai:dataCollection": config.provenance or "Stated in split.yaml.",
        "rai:dataCollectionType": ["Software Collection"],
        "rai:dataAnnotationProtocol": f"Labels are measured, not given: {n.base} rollouts of the base policy, "
        f"{protocol.runs} reference GRPO runs with {n.after} rollouts an item after each, judged by {judge} (rule "
        f"{protocol.verifier_rule}, tau {protocol.tau:g}); candidates are sampled afresh, {n.certify} rollouts a run. "
        "The raw counts travel with the labels, and `unlearnbench splits validate` computes the labels from them.",
        "rai:annotationsPerItem": str(n.base + protocol.runs * n.after),
        "rai:machineAnnotationTools": ["unlearnbench curate", "unlearnbench verify"],
        "rai:dataPreprocessingProtocol": ["Problems whose gold a verifier does not accept are left out."],
        "rai:dataUseCases": "Measuring whether an algorithm for reinforcement learning with verifiable rewards solves "
        "problems that GRPO is rewarded for and does not learn. Not for training models that are evaluated here "
        "otherwise, and no measure of a model's ability.",
        "rai:dataLimitations": "A label belongs to this base policy, recipe and budget, not to the problem; another "
        "policy or a longer run moves it. Labels carry sampling noise, which the counts allow to compute.",
        "rai:dataBiases": "Items were chosen for being hard for one small policy; problems are in English and short.",
        "rai:dataSocialImpact": "None is known beyond that of research on training language models.",
        "rai:personalSensitiveInformation": "None is known; names of people in generated problems are invented.",
        "rai:dataReleaseMaintenancePlan": "Versions are told apart by the hash of split.yaml; a change of labels is a "
        "new label_version, and results on another version are never ranked together.",
    }


def _file(folder: Path, name: str) -> dict[str, Any]:
    kind = {".parquet": "application/x-parquet", ".json": "application/json"}.get(Path(name).suffix, "application/yaml")
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": TABLES.get(
            name, "What the split is: policy, protocol, recipe, hashes." if kind.endswith("yaml") else ""
        ),
        "contentUrl": name,
        "encodingFormat": kind,
        "sha256": files.sha256(folder / name),
    }


def _record_set(folder: Path, name: str) -> dict[str, Any]:
    table = Path(name).stem
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": TABLES[name],
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{table}/{column.name}",
                "name": column.name,
                "description": COLUMNS.get(column.name, ""),
                "dataType": _data_type(column.type),
                "source": {"fileObject": {"@id": name}, "extract": {"column": column.name}},
            }
            for column in pq.read_schema(folder / name)
        ],
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
