"""What a method read decides its track, and nothing it does in its process changes what is measured. Real processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from unlearnbench import evaluate
from unlearnbench.errors import MethodError, SplitError
from unlearnbench.harness.judge import track_of
from unlearnbench.harness.privileged import CANARY_GROUP, Privileged, asked
from unlearnbench.io.files import write_json
from unlearnbench.io.tables import read_parquet
from unlearnbench.methods.grpo import Grpo
from unlearnbench.methods.prefix import Prefix
from unlearnbench.records import Result
from unlearnbench.scoring.fates import fates_of
from unlearnbench.splits import Split
from unlearnbench.training.ledger import read_visits
from unlearnbench.verifier import Verifier
from unlearnbench.workers.jobs import Compute


def _run(text: str, split: Split, folder: Path, seeds: Any = 1, **options: Any) -> Result:
    file = folder / "mine.py"
    file.write_text("import unlearnbench as ub\n\nclass Mine(ub.Method):\n" + text)
    return evaluate(str(file), split, seeds, out=folder / "run", **options)


READS_LABELS = """
    def setup(self):
        groups = {self.run.group(item.item_id) for item in self.run.items}
        assert {"easy", "unlearnable"} <= groups, groups
        self.run.reads = set()  # it would rather not have read them

    def train(self, loop):
        pass
"""


@pytest.fixture(scope="module")
def untrained(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run of a method that reads labels, hides that it did, and trains nothing."""
    folder = tmp_path_factory.mktemp("labels")
    return folder, _run(READS_LABELS, small_split, folder, quick=True)


def test_labels_that_were_read_are_known_outside_the_process_that_read_them(untrained: tuple[Path, Result]) -> None:
    _, result = untrained
    assert result.method.track == "labels"
    assert list(result.method.reads) == ["labels"]


def test_verdicts_on_text_that_was_not_generated_are_reading_the_answer(training: Any, tmp_path: Path) -> None:
    run = training(Grpo, tmp_path)
    item = run.services.items[0]
    assert track_of("verifier", asked(tmp_path)) == "verifier"
    right = [n for n in range(200) if run.services.verdict(item.item_id, f"\\boxed{{{n}}}").correct]
    assert asked(tmp_path) == ["verdict"]
    assert right == [int(run.services.answer(item.item_id))]
    assert asked(tmp_path) == ["answer", "verdict"]
    assert track_of("verifier", asked(tmp_path)) == "answer"
    assert run.meter.verifier_calls == 200


TAMPERS = """
    def train(self, loop):
        import json, pathlib
        import numpy as np, pyarrow as pa, pyarrow.parquet as pq
        from unlearnbench.records import Verdict
        from unlearnbench.verifier import Verifier
        Verifier.verify_many = lambda self, texts: [Verdict(True, "1", "match") for _ in texts]
        loop.meter.generated = loop.meter.trained = 0
        folder = loop.spec.folder
        (folder / "evaluation").mkdir(exist_ok=True)
        rows = [dict(item_id=i.item_id, sample=0, completion="", token_ids=[1], finish="stop", correct=True,
                     answer="1", reason="match") for i in self.run.items]
        pq.write_table(pa.Table.from_pylist(rows), folder / "evaluation" / "items.parquet")
        sealed = ub.load_split("micro").path
        table = pq.read_table(sealed / "pool.parquet")
        for place in (sealed / "pool.parquet", folder.parent / "evaluation/items.parquet"):
            try:
                pq.write_table(table.slice(0, 1), place)
            except OSError:
                pass
"""


@pytest.mark.slow  # tests/test_hostile_methods.py has another one
def test_tampering_inside_the_process_leaves_the_evaluation_as_it_is(
    untrained: tuple[Path, Result], small_split: Split, tmp_path: Path
) -> None:
    folder, honest = untrained
    cheated = _run(TAMPERS, small_split, tmp_path, quick=True)
    assert cheated.groups == honest.groups
    rows = [read_parquet(place / "run/1/evaluation/items.parquet") for place in (folder, tmp_path)]
    assert rows[0].equals(rows[1])


HANGS = """
    def train(self, loop):
        if self.run.seed == 2:
            import time
            time.sleep(600)
"""


@pytest.mark.slow  # tests/test_worker_group.py has the sentence
def test_a_method_that_hangs_is_ended_in_one_sentence_and_earlier_seeds_are_kept(
    small_split: Split, tmp_path: Path
) -> None:
    _run(HANGS, small_split, tmp_path, seeds=[1], samples=2)
    with pytest.raises(MethodError, match=r"seed 2 of mine reported nothing for 15 seconds.*--patience") as caught:
        _run(HANGS, small_split, tmp_path, seeds=[1, 2], samples=2, compute=Compute(workers=1, patience=15.0))
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "run/1/checkpoint/state.json").read_text())["finished"]
    assert (tmp_path / "run/1/evaluation/items.parquet").is_file()


@pytest.mark.slow  # tests/test_remeasured.py measures such a run's start
def test_a_run_from_the_positive_control_has_track_base_and_its_start_is_measured(
    small_split: Split, tmp_path: Path
) -> None:
    result = evaluate("mid_training", small_split, quick=True, out=tmp_path / "run")
    assert result.method.track == "base"
    before, start = result.groups["unlearnable"].rate_before, result.groups["unlearnable"].rate_start
    assert start is not None
    assert start > 0.5
    assert before is None or before < 0.1
    assert (tmp_path / "run/1/evaluation/start.parquet").is_file()


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as verifier:
        yield verifier


def test_canaries_have_a_group_like_any_other_item(small_split: Split, tmp_path: Path, verifier: Verifier) -> None:
    groups = Privileged(small_split, tmp_path).ask("labels", None, None, verifier)
    assert {groups[canary.item_id] for canary in small_split.canaries} == {CANARY_GROUP}
    assert CANARY_GROUP in {item.group for item in small_split.items}


def test_what_a_split_does_not_have_is_one_sentence(tmp_path: Path, small_split: Split, verifier: Verifier) -> None:
    bare = Split(shutil.copytree(small_split.path, tmp_path / "bare"))
    (bare.path / "similar.parquet").unlink()
    shutil.rmtree(bare.path / "positive_control")
    item = bare.items[0].item_id
    for name, told in (("similar", "no similar.parquet"), ("teacher", "no positive_control/policy"), ("x", "nothing")):
        with pytest.raises(SplitError, match=told):
            Privileged(bare, tmp_path / "seed").ask(name, item, None, verifier)
    write_json(tmp_path / "seed/asked.json", ["labels", "something else"])
    assert asked(tmp_path / "seed") == ["labels"]


@pytest.mark.checkout
def test_related_problems_repeat_no_item_twin_or_canary(micro: Split) -> None:
    from recipes.micro.families import read_prompt, wordings
    from unlearnbench.io.tables import read_records
    from unlearnbench.records import RelatedProblem

    held = {record.prompt for record in (*micro.items, *micro.twins, *micro.canaries)}
    held |= {wording for prompt in held for wording in wordings(*read_prompt(prompt))}
    hard = {item.item_id for item in micro.items if item.group in ("learnable", "unlearnable")}
    with Verifier() as verifier:
        for name in ("similar", "sub_problems"):
            rows = read_records(micro.path / f"{name}.parquet", RelatedProblem)
            prompts = [row.prompt for row in rows]
            assert len(set(prompts)) == len(prompts)
            assert not set(prompts) & held
            assert {row.item_id for row in rows} <= hard
            verdicts = verifier.verify_many([(row.answer, row.solution) for row in rows])
            assert all(verdict.correct for verdict in verdicts)
    assert {row.item_id for row in read_records(micro.path / "similar.parquet", RelatedProblem)} == hard


def test_fates_count_only_what_was_drawn_in_the_items_own_prompt(
    training: Any, tmp_path: Path, small_split: Split
) -> None:
    run = training(Prefix, tmp_path / "1", steps=1)
    run.method.given = {item.item_id: 4 for item in run.services.items}
    run.run()
    run.save()
    assert read_parquet(next((tmp_path / "1/rollouts").glob("*.parquet"))).num_rows > 0
    visits = read_visits(tmp_path / "1", 1)
    assert visits.num_rows == 0
    table = fates_of(visits, [item.item_id for item in small_split.items], [1])
    assert pc.unique(table["fate"]).to_pylist() == ["never"]
