"""Croissant metadata of exported splits: valid by MLCommons' own validator, and true to the files."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from unlearnbench.curation.publish import export_splits
from unlearnbench.io import files
from unlearnbench.splits import Split
from unlearnbench.splits.croissant import COLUMNS, FILE, croissant


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("croissant") / "export"
    export_splits(folder)
    return folder


def test_every_exported_split_has_metadata_whose_hashes_are_those_of_its_files(exported: Path) -> None:
    folders = [file.parent for file in exported.glob("*/split.yaml")]
    assert folders
    for folder in folders:
        stated = json.loads((folder / FILE).read_text())
        assert stated["name"] == f"UnlearnBench-{folder.name}"
        assert {file["contentUrl"] for file in stated["distribution"]} >= {
            "items.parquet",
            "counts.parquet",
            "split.yaml",
        }
        for file in stated["distribution"]:
            assert file["sha256"] == files.sha256(folder / file["contentUrl"])
        responsible = [key for key in stated if key.startswith("rai:")]
        assert len(responsible) >= 10
        assert all(stated[key] for key in responsible)


def test_every_column_is_described(micro: Split) -> None:
    for records in croissant(micro)["recordSet"]:
        assert [field["name"] for field in records["field"] if not field["description"]] == []
        assert {field["name"] for field in records["field"]} <= COLUMNS.keys()


def test_the_protocol_is_stated_with_its_numbers(micro: Split) -> None:
    stated = croissant(micro)["rai:dataAnnotationProtocol"]
    protocol = micro.config.protocol
    assert f"{protocol.runs} reference GRPO runs" in stated
    assert f"{protocol.samples.base} rollouts of the base policy" in stated


def test_mlcommons_validates_the_metadata_and_reads_the_records(exported: Path) -> None:
    mlc = pytest.importorskip("mlcroissant", reason="needs mlcroissant")
    for file in exported.glob(f"*/{FILE}"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = mlc.Dataset(jsonld=str(file))
            assert not dataset.metadata.ctx.issues.errors
            rows = list(dataset.records("items"))
        items = Split(file.parent).items
        assert [row["items/item_id"].decode() for row in rows] == [item.item_id for item in items]
