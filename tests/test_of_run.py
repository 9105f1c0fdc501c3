"""What a score ends with: gradient similarity of a run's start and end, in its result and page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unlearnbench.diagnosis import of_run
from unlearnbench.diagnosis.evaluate import evaluate_checkpoints
from unlearnbench.diagnosis.inputs import skill_of
from unlearnbench.diagnosis.of_run import OPTIONS, block_means, ship_start, start_of_split, with_similarity
from unlearnbench.diagnosis.record import SimilarityRecord
from unlearnbench.errors import DataError
from unlearnbench.io import tables
from unlearnbench.records import Result
from unlearnbench.reports.similarity import heatmap_url, read_cosines, rows, sentence
from unlearnbench.splits import Split

FEW = {"rollouts_per_item": 4, "cap": 200, "items_per_group": 5}


@pytest.fixture(scope="module")
def scored(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """The base policy, evaluated and diagnosed as if it were a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_run, "OPTIONS", FEW)
        home = tmp_path_factory.mktemp("home")
        patch.setenv("UNLEARNBENCH_HOME", str(home))
        out = tmp_path_factory.mktemp("run")
        done = evaluate_checkpoints([small_split.policy_path], small_split, samples=8, out=out)
        kept = start_of_split(small_split)
        assert kept.is_relative_to(home) and (kept / "similarity.json").is_file()
    return done.result, done.folder


def test_a_result_says_why(scored: tuple[Result, Path]) -> None:
    result, folder = scored
    found = result.similarity
    assert found is not None and found.why_not is None
    pairs = {(of.a, of.b, of.of) for of in found.start}
    assert ("learnable", "unlearnable", "all") in pairs and ("easy", "easy", "other_skills") in pairs
    # the base is both start and end here, diagnosed with the same random streams
    assert [of.model_dump() for of in found.start] == [of.model_dump() for of in found.end]
    record = tables.read_json_record(folder / "similarity" / "start" / "similarity.json", SimilarityRecord)
    by_name = {(of.a, of.b, of.of): of for of in found.start}
    for block in record.blocks:
        if block.raw is not None:
            assert by_name[block.a, block.b, "all"].mean == pytest.approx(block.raw)
    assert json.loads((folder / "result.json").read_text()) == result.model_dump(mode="json")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 2 and "two skills" in page
    assert json.loads((folder / "progress.json").read_text())["stages"][-1]["stage"] == "similarity"


def test_a_finished_diagnosis_is_not_made_again(
    scored: tuple[Result, Path], small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, folder = scored

    def never(*_: object, **__: object) -> None:
        raise AssertionError("diagnosed again")

    monkeypatch.setattr(of_run, "OPTIONS", FEW)
    monkeypatch.setattr(of_run, "diagnose", never)
    monkeypatch.setattr(of_run, "start_of_split", lambda *_: folder / "similarity" / "start")
    bare = result.model_copy(update={"similarity": None})
    again = with_similarity(bare, small_split, folder, {1: Path(small_split.policy_path)})
    assert again == result


def test_what_cannot_be_compared_is_said_and_fails_nothing(
    scored: tuple[Result, Path], small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise DataError("only 1 item has enough correct rollouts.")

    monkeypatch.setattr(of_run, "start_of_split", fails)
    found = with_similarity(scored[0], small_split, tmp_path, {})
    assert found.similarity is not None and found.similarity.why_not == "only 1 item has enough correct rollouts"
    assert "Not measured: only 1 item has enough" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_start_that_is_shipped_is_used(
    small_split: Split, scored: tuple[Result, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(small_split.path, tmp_path / "split")
    own = Split(tmp_path / "split")
    monkeypatch.setattr(of_run, "OPTIONS", FEW)
    monkeypatch.setattr(of_run, "start_of_split", lambda *_: scored[1] / "similarity" / "start")
    place = ship_start(own)
    monkeypatch.undo()
    monkeypatch.setattr(of_run, "OPTIONS", FEW)
    assert start_of_split(own) == place == own.path / "similarity"


def test_means_over_seeds(scored: tuple[Result, Path]) -> None:
    record = tables.read_json_record(scored[1] / "similarity" / "start" / "similarity.json", SimilarityRecord)
    higher = [
        block.model_copy(
            update={
                "raw": None if block.raw is None else block.raw + 0.2,
                "interval": None if block.interval is None else (block.interval[0] + 0.2, block.interval[1] + 0.4),
            }
        )
        for block in record.blocks
    ]
    other = record.model_copy(update={"blocks": tuple(higher), "matched": ()})
    one, both = ({(of.a, of.b, of.of): of for of in block_means(given)} for given in ([record], [record, other]))
    for key, mean in both.items():
        shift = 0.1 if key[2] == "all" else 0.0
        assert mean.mean == pytest.approx((one[key].mean or 0) + shift)
        if mean.interval is not None and key[2] == "all":
            before = one[key].interval
            assert before is not None
            assert mean.interval == pytest.approx((before[0] + 0.1, before[1] + 0.2))


def test_the_section_reads_start_beside_end(scored: tuple[Result, Path]) -> None:
    found = scored[0].similarity
    assert found is not None
    told = {(name, pairs): cells for name, pairs, cells in rows(found)}
    cells = told["learnable with unlearnable", "all"]
    assert len(cells) == 2 and cells[0] == cells[1]
    assert sentence(found).startswith("At the start, learnable items' gradients have a mean cosine of")


def test_a_heatmap_leaves_out_the_diagonal_and_names_a_broken_folder(tmp_path: Path) -> None:
    matrix = np.array([[1.0, 0.5, -0.5], [0.5, 1.0, np.nan], [-0.5, np.nan, 1.0]])
    url = heatmap_url(matrix, ["easy", "easy", "learnable"], 0.5)
    assert url.startswith("data:image/png;base64,") and url == heatmap_url(matrix, ["easy", "easy", "learnable"], 0.5)
    import base64
    import io

    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert pixels.shape == (12, 12, 4)
    assert pixels[1, 1, 3] == 0 and pixels[1, 5, 3] == 1 and pixels[5, 10, 3] == 0
    light = pixels[..., :3].mean(axis=-1)
    assert light[1, 5] > 0.8 and light[1, 10] < 0.35  # +0.5 is light and -0.5 dark, in grey too
    with pytest.raises(DataError, match="no readable diagnosis"):
        read_cosines(tmp_path, {})


@pytest.mark.parametrize(
    ("family", "skill"), [("private/low", "low"), ("rare/08-low", "low"), ("Algebra", "Algebra"), ("skill/sum", "sum")]
)
def test_skills(family: str, skill: str) -> None:
    assert skill_of(family) == skill


def test_options_leave_parts_of_one_size() -> None:
    assert OPTIONS["rollouts_per_item"] % 4 == 0
