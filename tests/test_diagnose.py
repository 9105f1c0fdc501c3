"""`diagnose` as a user meets it: files, what is left out, taking up again, rollouts from a file, sentences."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import unlearnbench
from unlearnbench.cli.main import run
from unlearnbench.diagnosis.diagnose import diagnose_each
from unlearnbench.diagnosis.page import finding
from unlearnbench.diagnosis.record import Diagnosis, SimilarityRecord
from unlearnbench.errors import DataError, PolicyError, RunError
from unlearnbench.harness.policy_ref import resolve
from unlearnbench.io import tables
from unlearnbench.splits import Split
from unlearnbench.verifier import Verifier

OPTIONS: dict[str, Any] = {"rollouts_per_item": 8, "cap": 400, "items_per_group": 6}


@pytest.fixture(scope="module")
def found(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    out = tmp_path_factory.mktemp("diagnoses") / "found"
    return unlearnbench.diagnose(small_split.policy_path, small_split, out=out, workers=1, **OPTIONS)


@pytest.fixture(scope="module")
def rows(found: Diagnosis) -> list[dict[str, Any]]:
    """The rollouts that were used."""
    return list(tables.read_parquet(found.folder / "rollouts.parquet").to_pylist())


def write_rows(path: Path, rows: list[dict[str, Any]], *names: str) -> Path:
    path.write_text("".join(json.dumps({name: row[name] for name in names or row}) + "\n" for row in rows))
    return path


# --- what it leaves ---------------------------------------------------------------------------------------------------


def test_files_say_what_the_object_says(found: Diagnosis) -> None:
    record = tables.read_json_record(found.folder / "similarity.json", SimilarityRecord)
    assert record == found.record
    stored = load_file(found.folder / "similarity.safetensors")
    n, groups = len(record.item_ids), len(record.group_order)
    assert stored["cosine"].shape == (n, n) and stored["reliability"].shape == (n,)
    assert stored["block_raw"].shape == stored["block_corrected"].shape == (groups, groups)
    np.testing.assert_allclose(stored["cosine"], found.cosine, atol=1e-7)
    np.testing.assert_allclose(stored["cosine"], stored["cosine"].T)
    np.testing.assert_allclose(np.diag(stored["cosine"]), 1, atol=1e-6)
    assert [(block.a, block.b) for block in record.blocks][:2] == [("easy", "easy"), ("easy", "learnable")]
    for number, block in enumerate(record.blocks):
        a, b = (np.array(record.groups) == name for name in (block.a, block.b))
        pairs = found.cosine[np.ix_(a, b)]
        values = pairs[np.triu_indices(len(pairs), 1)] if block.a == block.b else pairs
        assert block.raw == pytest.approx(values.mean()), number
        assert stored["block_raw"][record.group_order.index(block.a), record.group_order.index(block.b)] == block.raw
    assert (found.folder / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    page = (found.folder / "report.html").read_text()
    assert "data:image/png;base64," in page and "<script" not in page
    assert all(item.item_id in page for item in found.excluded)
    assert not list((found.folder / ".work").glob("vectors-*")), "vectors are large, and of no use once compared"


def test_every_item_has_the_same_number_of_correct_rollouts_or_is_listed(
    found: Diagnosis, rows: list[dict[str, Any]], small_split: Split
) -> None:
    answers = {item.item_id: item.answer for item in small_split.items}
    with Verifier() as verifier:
        assert all(verifier.verify(answers[row["item_id"]], row["completion"]).correct for row in rows)
    for item_id in found.item_ids:
        samples = [row["sample"] for row in rows if row["item_id"] == item_id]
        assert len(samples) == 8 and samples == sorted(set(samples))
    assert {row["item_id"] for row in rows} == set(found.item_ids)
    assert len(found.item_ids) + len(found.excluded) == 18
    assert {row.group for row in found.excluded} <= {"easy", "learnable", "unlearnable"}
    assert found.excluded, "some item must be too seldom right for this test to see anything"
    for row in found.excluded:
        assert row.found < 8 and row.sampled == 400 and row.reason == f"{row.found} of 8 correct rollouts"


def test_cosines_are_those_of_the_rollouts_it_names(
    found: Diagnosis, rows: list[dict[str, Any]], small_split: Split
) -> None:
    """Each rollout by itself, by automatic differentiation of an adapter written out here."""
    import torch

    from unlearnbench.diagnosis.gradients import Adapter, _AdapterGradients
    from unlearnbench.policies.policy import load_policy

    policy = load_policy(small_split.policy_path)
    downs = [(module, down) for module, down, _ in _AdapterGradients(policy.model, Adapter(seed=0))._downs]
    ups = [torch.zeros(module.out_features, 16, requires_grad=True) for module, _ in downs]
    hooks = [
        module.register_forward_hook(lambda _, x, y, a=down, b=up: y + 2 * (x[0] @ a.T) @ b.T)
        for (module, down), up in zip(downs, ups, strict=True)
    ]
    vectors = []
    for item_id in found.item_ids[:5]:
        loss = torch.zeros(())
        for row in (row for row in rows if row["item_id"] == item_id):
            prompt, tokens = policy.encode(row["prompt"]).tolist(), row["token_ids"]
            logits = policy.model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
            loss = loss - logits.log_softmax(-1)[range(len(tokens)), tokens].mean()
        vectors.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, ups)]))
    for hook in hooks:
        hook.remove()
    unit = torch.nn.functional.normalize(torch.stack(vectors), dim=1)
    np.testing.assert_allclose(found.cosine[:5, :5], (unit @ unit.T).numpy(), atol=1e-5)


# --- taking up again ------------------------------------------------------------------------------------------------


@pytest.mark.slow  # the next one is interrupted, too
def test_a_killed_diagnosis_goes_on_where_it_was(found: Diagnosis, small_split: Split, tmp_path: Path) -> None:
    code = f"""
import os, signal, unlearnbench
def told(stage, done, total):
    if stage == "gradients" and done > 0:
        os.kill(os.getpid(), signal.SIGKILL)
unlearnbench.diagnose({str(small_split.policy_path)!r}, {str(small_split.path)!r}, out={str(tmp_path)!r},
    workers=1, progress=told, **{OPTIONS!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "similarity.json").exists()
    done = np.fromfile(tmp_path / ".work" / "done-0.u8", np.uint8)
    assert 0 < done.sum() < len(done), "it was killed amid the gradients"
    told: list[tuple[str, int, int]] = []
    again = unlearnbench.diagnose(
        small_split.policy_path,
        small_split,
        out=tmp_path,
        workers=2,
        progress=lambda *event: told.append(event),
        **OPTIONS,
    )
    assert [event for event in told if event[0] == "gather"] == [], "the rollouts were all there"
    assert told[0] == ("gradients", int(done.sum()), len(done)) and told[-1] == ("gradients", len(done), len(done))
    np.testing.assert_allclose(again.cosine, found.cosine, atol=1e-6)
    assert (tmp_path / "rollouts.parquet").read_bytes() == (found.folder / "rollouts.parquet").read_bytes()


def test_two_runs_are_alike_and_another_one_is_refused(found: Diagnosis, small_split: Split, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if stage == "gather" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unlearnbench.diagnose(small_split.policy_path, small_split, out=tmp_path, progress=stop, workers=1, **OPTIONS)
    unlearnbench.diagnose(small_split.policy_path, small_split, out=tmp_path, workers=1, **OPTIONS)
    for name in ("similarity.json", "similarity.safetensors", "rollouts.parquet", "heatmap.png", "report.html"):
        assert (tmp_path / name).read_bytes() == (found.folder / name).read_bytes(), name
    with pytest.raises(RunError, match=r"another cap \(400 there, 100 here\)"):
        unlearnbench.diagnose(small_split.policy_path, small_split, out=tmp_path, **{**OPTIONS, "cap": 100})


def test_a_folder_keeps_to_what_was_written_there(found: Diagnosis, small_split: Split, tmp_path: Path) -> None:
    """Also where `.work`, which may be removed, is gone."""
    out = tmp_path / "out"
    shutil.copytree(found.folder, out, ignore=shutil.ignore_patterns(".work"))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    policy = small_split.policy_path
    changed = tmp_path / "changed"
    shutil.copytree(policy, changed)
    (changed / "generation_config.json").write_text('{"eos_token_id": 1}')
    with pytest.raises(RunError, match=r"holds a diagnosis with another cap \(400 there, 100 here\)"):
        unlearnbench.diagnose(policy, small_split, out=out, **{**OPTIONS, "cap": 100})
    with pytest.raises(RunError, match="holds a diagnosis with another policy"):
        unlearnbench.diagnose(changed, small_split, out=out, **OPTIONS)
    with pytest.raises(RunError, match="holds the diagnosis of one policy, not of several"):
        diagnose_each([policy, changed], small_split, out=out, **OPTIONS)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != ".lock"} == {
        name: content for name, content in before.items() if name != ".lock"
    }
    several = tmp_path / "several"
    shutil.copytree(found.folder, several / "1-other")
    with pytest.raises(RunError, match=r"holds a diagnosis of another policy \(1-other\)"):
        diagnose_each([policy, changed], small_split, out=several, **OPTIONS)
    (several / "policies.json").write_text("{}")
    with pytest.raises(RunError, match="holds diagnoses of several policies"):
        unlearnbench.diagnose(policy, small_split, out=several, **OPTIONS)


# --- rollouts from a file -------------------------------------------------------------------------------------------


def test_rollouts_from_a_file_give_the_same_cosines(
    found: Diagnosis, rows: list[dict[str, Any]], small_split: Split, tmp_path: Path
) -> None:
    wrong = [{**rows[0], "correct": False, "completion": "wrong", "token_ids": None}]
    names = ("item_id", "prompt", "completion", "finish", "correct", "group")  # tokens are made of the completions
    file = write_rows(tmp_path / "given.jsonl", [*wrong, *rows, *rows[:3]], *names)
    policy = small_split.policy_path
    given = unlearnbench.diagnose(policy, rollouts=file, out=tmp_path / "a", workers=1, rollouts_per_item=8)
    assert given.item_ids == found.item_ids and given.groups == found.groups and not given.excluded
    np.testing.assert_allclose(given.cosine, found.cosine, atol=1e-6)
    # A split lends prompts and groups, and what the file lacks is sampled.
    few = write_rows(tmp_path / "few.jsonl", rows[2:], "item_id", "token_ids", "correct")
    fixed = unlearnbench.diagnose(policy, small_split, rollouts=few, out=tmp_path / "b", workers=1, **OPTIONS)
    used = tables.read_parquet(tmp_path / "b" / "rollouts.parquet").to_pylist()
    assert fixed.item_ids == found.item_ids
    assert [row["origin"] for row in used if row["item_id"] == rows[0]["item_id"]] == ["file"] * 6 + ["sampled"] * 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"correct": "yes"}, "row 2, field 'correct': true or false (or 1 or 0) was expected, but it is 'yes'"),
        ({"correct": None}, "row 2, field 'correct': it is missing"),
        ({"item_id": None}, "row 2, field 'item_id': it is missing"),
        ({"group": " "}, "row 2, field 'group': it is empty"),
        ({"prompt": None}, "row 2, field 'prompt': item 'x' has none"),
        ({"prompt": "other"}, "row 2, field 'prompt': item 'x' has another prompt in an earlier row"),
        ({"token_ids": []}, "row 2, field 'token_ids': whole numbers from 0 were expected"),
        ({"token_ids": [1, 10**6]}, "row 2, field 'token_ids': 1000000 is not a token"),
        ({"token_ids": None}, "row 2: neither 'completion' nor 'token_ids'"),
        ({"count": 3}, "row 2, field 'count'"),
    ],
)
def test_a_wrong_row_is_named(change: dict[str, Any], told: str, small_split: Split, tmp_path: Path) -> None:
    row = {"item_id": "x", "prompt": "1", "token_ids": [1, 2], "correct": True}
    file = write_rows(tmp_path / "given.jsonl", [row, {**row, **change}])
    with pytest.raises(DataError) as problem:
        unlearnbench.diagnose(small_split.policy_path, rollouts=file, out=tmp_path / "out", rollouts_per_item=4)
    assert f"{file}, {told}" in str(problem.value) and "\n" not in str(problem.value)


def test_the_log_of_a_trainer_is_read_with_its_step_and_matched_by_its_prompt(
    rows: list[dict[str, Any]], small_split: Split, tmp_path: Path
) -> None:
    """As TRL writes it: no ids, the reward as the verdict, several steps."""
    asked = {item.item_id: item.prompt for item in small_split.items}
    logged = [
        {"step": step, "prompt": f"user\n{asked[row['item_id']]}\nassistant\n", "completion": text, "reward": reward}
        for row in rows[:48]
        for step, text, reward in ((1, row["completion"], 1.0), (2, "wrong", 0.0))
    ]
    file = write_rows(tmp_path / "given.jsonl", logged)
    told: dict[str, Any] = {"split": small_split, "rollouts": file, "rollouts_per_item": 8, "cap": 8, "workers": 1}
    with pytest.raises(DataError, match=r"are of several steps of a training \(1, 2\).*choose one step with --step N"):
        unlearnbench.diagnose(small_split.policy_path, out=tmp_path / "both", **told)
    one = unlearnbench.diagnose(small_split.policy_path, out=tmp_path / "one", step=1, **told)
    assert set(one.item_ids) == {row["item_id"] for row in rows[:48]}
    used = tables.read_parquet(tmp_path / "one" / "rollouts.parquet").to_pylist()
    assert {row["origin"] for row in used} == {"file"}
    assert {row["prompt"] for row in used} == {asked[name] for name in one.item_ids}


def test_one_token_and_identical_rollouts_are_taken_as_they_are(small_split: Split, tmp_path: Path) -> None:
    tokens = {"one": [[5]] * 4, "same": [[7, 9, 3]] * 4, "different": [[7, 9], [4, 4], [8], [3, 2, 1]]}
    rows = [
        {"item_id": name, "prompt": "1+1", "token_ids": ids, "correct": True}
        for name, all_ids in tokens.items()
        for ids in all_ids
    ]
    file = write_rows(tmp_path / "given.jsonl", rows)
    done = unlearnbench.diagnose(small_split.policy_path, rollouts=file, out=tmp_path / "out", rollouts_per_item=4)
    assert done.record.group_order == ("items",) and done.auc is None
    np.testing.assert_allclose(done.reliability[:2], 1, atol=1e-5)
    assert done.reliability[2] < 0.9


def test_groups_that_are_left_out_are_counted_and_the_headline_says_why(
    found: Diagnosis, rows: list[dict[str, Any]], small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, int] = {}
    given = []
    for row in rows:
        seen[row["item_id"]] = number = seen.get(row["item_id"], 0) + 1
        if row["group"] != "learnable" or number <= 3:
            given.append(row)
    file = write_rows(tmp_path / "given.jsonl", given, "item_id", "prompt", "token_ids", "correct", "group")
    words = ["diagnose", str(small_split.policy_path), "--rollouts", str(file), "--out", str(tmp_path / "out")]
    assert run([*words, "--rollouts-per-item", "8", "--workers", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    learnable, easy = (found.groups.count(name) for name in ("learnable", "easy"))
    headline = (
        f"The paper's finding cannot be tested here: all {learnable} learnable items were left out (too few correct "
        "rollouts)"
    )
    record = tables.read_json_record(tmp_path / "out" / "similarity.json", SimilarityRecord)
    assert headline in finding(record) and headline in printed
    assert f"learnable │ {learnable} │ {learnable} │ too few correct rollouts" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    counted = f'<td class="word">too few correct rollouts</td><td>{learnable}</td><td>{learnable}</td>'
    assert f'<tr><th scope="row">learnable</th>{counted}</tr>' in page
    assert f'<tr><th scope="row">easy</th><td class="word">\N{EN DASH}</td><td>0</td><td>{easy}</td></tr>' in page


# --- policies -------------------------------------------------------------------------------------------------------


def test_an_item_whose_gradient_is_not_finite_is_left_out(
    found: Diagnosis, rows: list[dict[str, Any]], small_split: Split, tmp_path: Path
) -> None:
    import torch

    from unlearnbench.policies.policy import load_policy, save_policy

    policy = load_policy(small_split.policy_path)
    model = policy.model
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    seen = {item: {t for row in rows if row["item_id"] == item for t in row["token_ids"]} for item in found.item_ids}
    prompts = {row["item_id"]: set(policy.encode(row["prompt"]).tolist()) for row in rows}
    seen = {item: tokens | prompts[item] for item, tokens in seen.items()}
    victim, token = next(
        (item, token)
        for item in seen
        for token in sorted(seen[item])
        if sum(token in others for others in seen.values()) == 1
    )
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = float("nan")
    save_policy(policy, tmp_path / "broken")
    file = write_rows(tmp_path / "given.jsonl", rows, "item_id", "prompt", "token_ids", "correct", "group")
    alone = {"rollouts": file, "rollouts_per_item": 8, "workers": 1}
    done = unlearnbench.diagnose(tmp_path / "broken", out=tmp_path / "out", **alone)
    assert [(row.item_id, row.reason) for row in done.excluded] == [(victim, "its gradient is not finite")]
    kept = [place for place, item in enumerate(found.item_ids) if item != victim]
    np.testing.assert_allclose(done.cosine, found.cosine[np.ix_(kept, kept)], atol=1e-6)
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    save_policy(policy, tmp_path / "worse")
    with pytest.raises(PolicyError, match=r"worse has weights that are not finite numbers \(in lm_head.weight\)"):
        unlearnbench.diagnose(
            tmp_path / "worse",
            rollouts=file,
            out=tmp_path / "b",
            rollouts_per_item=8,
            progress=lambda *_: pytest.fail("it began"),
        )


def test_all_rollouts_by_their_standardised_reward_with_several_adapters_at_several_policies(
    small_split: Split, tmp_path: Path
) -> None:
    policies = [small_split.policy_path, tmp_path / "none", small_split.policy_path]
    (tmp_path / "none").mkdir()
    options = {**OPTIONS, "reward": "group", "adapter_seeds": 2, "groups": ("learnable", "unlearnable"), "parts": 2}
    done = diagnose_each(policies[::2], small_split, out=tmp_path / "out", workers=1, **options)
    assert len(done) == 2 and done[0].record == done[1].record
    record = done[0].record
    rows = tables.read_parquet(done[0].folder / "rollouts.parquet").to_pylist()
    for item in record.item_ids:
        weights = np.array([row["weight"] for row in rows if row["item_id"] == item])
        right = np.array([row["correct"] for row in rows if row["item_id"] == item])
        assert len(weights) == 8 and abs(weights.sum()) < 1e-9 and weights.std(ddof=1) == pytest.approx(1, abs=1e-4)
        assert (weights[right] > 0).all() and (weights[~right] < 0).all()
    assert {row.reason for row in record.excluded} == {"all rollouts have the same reward"}
    assert [one.seed for one in record.by_adapter_seed] == [0, 1] and 0 < (record.pair_spread or 0) < 0.5
    told = json.loads((tmp_path / "out" / "policies.json").read_text())["policies"]
    assert [policy["blocks"] for policy in told] == [[b.model_dump(mode="json") for b in record.blocks]] * 2
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(PolicyError, match=r"neither a policy .* nor a run's checkpoints"):
        resolve(policies[1])


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_record_or_tables(
    found: Diagnosis, small_split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["diagnose", str(small_split.policy_path), "--split", str(small_split.path), "--out", str(found.folder)]
    words += ["--rollouts-per-item", "8", "--cap", "400", "--items-per-group", "6"]
    assert run([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert SimilarityRecord.model_validate_json(printed.out) == found.record and printed.err == ""
    assert run(words) == 0
    printed = capsys.readouterr()
    assert "learnable" in printed.out and "report.html" in printed.out and printed.err == ""
