"""`eval` from the outside, in real processes, on a small split: results, resume, seals, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import errors
from orphans import descendants, still_running
from safetensors.torch import load_file, save_file

from unlearnbench import evaluate, load_split
from unlearnbench.cli.eval import evaluate as command
from unlearnbench.errors import MethodError, MethodNotFound, PolicyError, RunError
from unlearnbench.harness.evaluate import evaluate_checkpoints, score_run
from unlearnbench.harness.run_config import RunConfig, claim_seed
from unlearnbench.harness.training_jobs import keep_source
from unlearnbench.io.tables import read_json_record, read_parquet
from unlearnbench.methods import locate
from unlearnbench.records import Result
from unlearnbench.splits import Split
from unlearnbench.workers.jobs import weights_hash


def _numbers(folder: Path) -> dict[str, Any]:
    """result.json without times."""
    result = read_json_record(folder / "result.json", Result).model_dump(mode="json")
    for name in ("seconds", "cpu_seconds", "cpu_seconds_per_flop_over_null"):
        result["cost"].pop(name)
    return result


@pytest.fixture(scope="module")
def finished(small_split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two seeds with 32 samples per item."""
    out = tmp_path_factory.mktemp("runs") / "grpo"
    evaluate("grpo", small_split, 2, out=out)
    return out


def test_a_run_leaves_every_file_of_the_contract(finished: Path, small_split: Split) -> None:
    for name in ("counts.parquet", "fates.parquet", "result.json", "report.html"):
        assert (finished / name).is_file()
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "evaluation/items.parquet",
        "evaluation/twins.parquet",
        "checkpoint/model.safetensors",
    ):
        assert (finished / "1" / name).is_file()
    assert list((finished / "1" / "rollouts").glob("*.parquet"))
    rows = read_parquet(finished / "1/evaluation/items.parquet")
    assert set(rows.column_names) == {
        "item_id",
        "sample",
        "completion",
        "token_ids",
        "finish",
        "correct",
        "answer",
        "reason",
    }
    assert rows.num_rows == 32 * len(small_split.items)
    assert not (finished / "1/evaluation/start.parquet").exists()


def test_the_result_says_what_the_counts_say(finished: Path, small_split: Split) -> None:
    result = read_json_record(finished / "result.json", Result)
    counts = read_parquet(finished / "counts.parquet").to_pylist()
    easy = set(small_split.ids("easy"))
    of_easy = [row for row in counts if row["phase"] == "eval" and row["item_id"] in easy]
    assert {row["n"] for row in of_easy} == {32}
    rate = sum(row["correct"] for row in of_easy) / sum(row["n"] for row in of_easy)
    assert result.groups["easy"].rate_after == pytest.approx(rate)
    assert result.conversion.gain is None  # the small split has no null control
    assert not result.comparable
    assert "null control" in (result.why_not_comparable or "")
    assert result.method.track == "verifier"
    assert len(result.budget.used) == 2


def test_the_same_command_again_changes_nothing_and_a_lost_evaluation_is_made_again_alike(
    finished: Path, small_split: Split, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "2/evaluation/items.parquet").unlink()
    (copy / "result.json").unlink()
    (copy / "2/environment.json").unlink()  # as if killed between the checkpoint and what is said of it
    trained = (copy / "1/environment.json").stat().st_mtime_ns
    words = ["--method", "grpo", "--split", str(small_split.path), "--seeds", "2", "--out", str(copy)]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0 and done.stdout.endswith(f"\nreport: {copy / 'report.html'}\n")
    assert _numbers(copy) == _numbers(finished)
    assert (copy / "1/environment.json").stat().st_mtime_ns == trained  # no worker was started for it
    assert (copy / "2/environment.json").is_file()
    one, two = (read_parquet(folder / "2/evaluation/items.parquet") for folder in (copy, finished))
    assert one.equals(two)


def test_a_run_at_1x_is_scored_against_the_tuned_null_and_no_null_is(
    finished: Path, small_split: Split, tmp_path: Path
) -> None:
    split = load_split(shutil.copytree(small_split.path, tmp_path / "small"))
    for place in ("null_control/1x", "null_control/4x", "tuned_null/1"):
        for name in ("result.json", "counts.parquet"):
            (split.path / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(finished / name, split.path / place / name)
    folder = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("rollouts", "metrics.jsonl"))
    scored = {
        purpose: score_run(RunConfig(split, locate("grpo"), (1, 2), 32, purpose=purpose), folder)
        for purpose in ("eval", "null")
    }
    found = scored["eval"].conversion  # its own counts are both controls here
    assert found.gain == 0.0 and found.tuned_null is not None
    assert (found.tuned_null.gain, found.tuned_null.learning_rate, found.tuned_null.seeds) == (0.0, 1.0, 2)
    assert scored["null"].conversion.gain is None and scored["null"].conversion.tuned_null is None


def test_a_folder_of_another_configuration_is_refused_by_name(finished: Path, small_split: Split) -> None:
    with pytest.raises(RunError, match=r"another run \(settings: "):
        evaluate("grpo", small_split, 2, out=finished, settings={"kl": 0.5})
    with pytest.raises(RunError, match=r"another run \(samples: 32 there, 64 here"):
        evaluate("grpo", small_split, 2, out=finished, samples=64)


def test_checkpoints_are_evaluated_and_foreign_ones_refused(finished: Path, small_split: Split, tmp_path: Path) -> None:
    placed: list[Path] = []
    out = tmp_path / "run"
    result = evaluate_checkpoints([finished / "1/checkpoint"], small_split, out=out, placed=placed.append)
    assert placed == [out]
    assert result.kind == "checkpoint"
    assert result.method.track == "undeclared"
    assert result.groups["easy"].rate_after is not None
    foreign = tmp_path / "foreign"
    shutil.copytree(finished / "1/checkpoint", foreign)
    config = json.loads((foreign / "config.json").read_text())
    (foreign / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(PolicyError, match="num_hidden_layers 2"):
        evaluate_checkpoints([foreign], small_split, out=tmp_path / "other")


def _merged_once_and_whole(place: Path, split: Split) -> None:
    """A kill while an adapter is merged leaves nothing that is taken for the policy, nor does another adapter's run."""
    out, seed = place / "run-adapter", place / "run-adapter/1"
    (seed / "merged/model.safetensors").unlink()
    (seed / "merged").rename(seed / ".merged.tmp")
    shutil.rmtree(seed / "evaluation")
    evaluate_checkpoints([place / "adapter"], split, samples=2, out=out)
    assert not (seed / ".merged.tmp").exists()
    shutil.rmtree(seed / "evaluation")  # as if it had been killed before a first shard was drawn
    other = Path(shutil.copytree(place / "adapter", place / "other"))
    weights = load_file(other / "adapter_model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, other / "adapter_model.safetensors")
    with pytest.raises(RunError, match=r"holds another run \(checkpoints: "):
        evaluate_checkpoints([other], split, samples=2, out=out)


@pytest.mark.slow  # tests/test_checkpoints.py merges adapters without processes
@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what transformers has renamed
@pytest.mark.slow
def test_a_lora_adapter_of_the_base_is_evaluated_as_the_policy_that_it_makes(
    small_split: Split, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from unlearnbench.policies.policy import load_policy, save_policy

    torch.manual_seed(0)
    base = load_policy(small_split.policy_path)
    adapted = get_peft_model(base.model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    save_policy(replace(base, model=adapted.merge_and_unload()), tmp_path / "whole")
    results = [
        evaluate_checkpoints([tmp_path / name], small_split, samples=2, out=tmp_path / f"run-{name}")
        for name in ("adapter", "whole")
    ]
    assert results[0].groups == results[1].groups
    rows = [read_parquet(tmp_path / f"run-{name}/1/evaluation/items.parquet") for name in ("adapter", "whole")]
    assert rows[0].equals(rows[1])
    _merged_once_and_whole(tmp_path, small_split)
    before, told = weights_hash(tmp_path / "adapter"), tmp_path / "adapter/adapter_config.json"
    told.write_text(told.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert weights_hash(tmp_path / "adapter") != before, "twice as strong an adapter is another policy"
    (tmp_path / "adapter/adapter_model.safetensors").rename(tmp_path / "adapter/adapter_model.bin")
    with pytest.raises(PolicyError, match=r"no adapter_model\.safetensors"):
        evaluate_checkpoints([tmp_path / "adapter"], small_split, samples=2, out=tmp_path / "pickled")


def test_a_policy_that_is_neither_here_nor_on_the_hub_is_one_sentence(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name, told in (("owner/name", "the Hub cannot be reached"), ("./nowhere", "There is no checkpoint ./nowhere")):
        with pytest.raises(PolicyError, match=told) as caught:
            evaluate_checkpoints([name], small_split, out=tmp_path / "run")
        assert "\n" not in str(caught.value)

    def breaks_off(*_: object, **__: object) -> str:
        raise errors.HTTPError("peer closed connection")  # type: ignore[attr-defined]

    monkeypatch.setattr("huggingface_hub.snapshot_download", breaks_off)
    with pytest.raises(PolicyError, match="the Hub cannot be reached"):
        evaluate_checkpoints(["owner/name"], small_split, out=tmp_path / "run")


SPY = """
import json
from pathlib import Path
import unlearnbench as ub

ORIGINAL = Path({original!r})

class Spy(ub.Method):
    def setup(self):
        import pyarrow.parquet as pq
        found = {{"shipped": [], "own": []}}
        for name in ("items.parquet", "twins.parquet", "counts.parquet", "canaries.json", "data/unlearnable.parquet"):
            for read in (lambda p: pq.read_table(str(p)).num_rows, lambda p: len(open(p, "rb").read())):
                try:
                    if read(ORIGINAL / name):
                        found["shipped"].append(name)
                except (OSError, ValueError):
                    pass
        split = ub.load_split({name!r})
        for what in ("items", "twins", "canaries"):
            try:
                found["own"] += [what for _ in getattr(split, what)]
            except ub.UnlearnBenchError:
                pass
        found["items"] = len(self.run.items)
        found["fields"] = sorted({{name for item in self.run.items for name in type(item).__dataclass_fields__}})
        found["columns"] = pq.read_table(str(split.path / "pool.parquet")).column_names
        found["files"] = sorted(p.name for p in split.path.iterdir())
        raise ValueError(json.dumps(found))
"""


def test_a_method_that_opens_the_splits_files_finds_no_labels_and_no_twins(small_split: Split, tmp_path: Path) -> None:
    text = SPY.format(original=str(small_split.path), name=str(small_split.path))
    (tmp_path / "spy.py").write_text(text)
    with pytest.raises(MethodError, match=r"Spy\.setup raised ValueError") as caught:
        evaluate(str(tmp_path / "spy.py"), small_split, quick=True, out=tmp_path / "run")
    seen = json.JSONDecoder().raw_decode(str(caught.value).partition("ValueError: ")[2])[0]
    assert seen["shipped"] == seen["own"] == []
    assert seen["items"] == len(small_split.items) + len(small_split.canaries)
    assert seen["fields"] == seen["columns"] == ["item_id", "prompt"]
    assert seen["files"] == ["policy", "pool.parquet", "split.yaml"]


METHOD = "import unlearnbench as ub\nclass A(ub.Method):\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "FILE defines no subclass"),
        (f"{METHOD}    track = 'verfier'\n", "FILE: A.track is 'verfier'; it must be one of"),
        (f"{METHOD}    pass\nclass B(ub.Method): pass\n", "FILE defines several methods"),
        ("1 / 0\n", "FILE does not run .ZeroDivisionError"),
        (f"{METHOD}  def keep(self, r):\n    return r.nothing\n", r"A.keep raised .*nothing.* \(FILE, line 4\)"),
        pytest.param(
            f"{METHOD}  def keep(self, r):\n    return 3\n",
            r"A.keep returned 3; .* \(FILE, line 3\)",
            marks=pytest.mark.slow,  # tests/test_method_errors.py has more of these, without processes
        ),
    ],
)
def test_a_file_that_holds_no_good_method_ends_in_one_sentence(
    text: str, message: str, small_split: Split, tmp_path: Path
) -> None:
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(MethodError, match=message.replace("FILE", str(tmp_path / "bad.py"))) as caught:
        evaluate(str(tmp_path / "bad.py"), small_split, quick=True, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "method.py" not in str(caught.value)  # the copy that is run


@pytest.mark.slow
def test_a_mended_method_runs_in_the_folder_that_it_failed_in(small_split: Split, tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    method.write_text("import os, unlearnbench as ub\nclass A(ub.Method):\n  def setup(self):\n    os._exit(0)\n")
    with pytest.raises(MethodError, match="ended its own process"):
        evaluate(str(method), small_split, quick=True, out=tmp_path / "run")
    method.write_text("import unlearnbench as ub\nclass A(ub.Method):\n  def train(self, loop):\n    pass\n")
    result = evaluate(str(method), small_split, quick=True, out=tmp_path / "run")
    assert result.method.name == "mine"
    assert result.conversion.gain is None
    assert "--quick" in (result.why_not_comparable or "")


def test_two_commands_do_not_share_a_folder(small_split: Split, tmp_path: Path) -> None:
    from unlearnbench.io.folder_lock import locked

    with locked(tmp_path / "run"), pytest.raises(RunError, match="another command is working"):
        evaluate("grpo", small_split, quick=True, out=tmp_path / "run")


def test_an_unknown_method_is_told_what_was_tried(small_split: Split, tmp_path: Path) -> None:
    with pytest.raises(MethodNotFound, match=r"built-in methods .*entry points.*the file \./nothing\.py"):
        evaluate("nothing", small_split, out=tmp_path)
    with pytest.raises(MethodNotFound, match="no method file"):
        evaluate("nothing.py", small_split, out=tmp_path)


def test_a_setting_that_no_method_has_is_refused(small_split: Split, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="--set bonsu"):
        evaluate("grpo", small_split, quick=True, out=tmp_path / "run", settings={"bonsu": 1})


def test_seeds_must_be_a_set_of_numbers(small_split: Split, tmp_path: Path) -> None:
    for seeds in (0, [], [1, 1], [-1]):
        with pytest.raises(RunError, match="seeds"):
            evaluate("grpo", small_split, seeds, out=tmp_path)


@pytest.mark.slow
def test_killed_with_its_workers_and_resumed_it_gives_the_unbroken_result(
    finished: Path, small_split: Split, tmp_path: Path
) -> None:
    """kill -9 of the command while it trains; no worker survives it; the same command then ends as the other did."""
    out = tmp_path / "killed"
    code = f"from unlearnbench import evaluate; evaluate('grpo', {str(small_split.path)!r}, 2, out={str(out)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 120
    while not any(out.glob("*/.training/checkpoint/state.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    started = descendants(process.pid)
    process.kill()
    process.wait()
    assert len(started) >= 2  # a seed's process behind walls at least; the other may have ended its training
    assert still_running(started, patience=30) == []
    assert not (out / "result.json").exists()
    evaluate("grpo", small_split, 2, out=out)
    assert _numbers(out) == _numbers(finished)


def test_the_source_that_is_kept_is_the_one_that_runs(small_split: Split, tmp_path: Path) -> None:
    method = tmp_path / "mine.py"
    for text in ("# ends before its first checkpoint\n", "# fixed\n"):
        method.write_text(f"{text}import unlearnbench as ub\nclass Mine(ub.Method): pass\n")
        source = locate(str(method))
        claim_seed(tmp_path / "run", 1, RunConfig(small_split, source, (1,), 2).configuration())
        keep_source(source, tmp_path / "run/1")
        assert json.loads((tmp_path / "run/1/config.json").read_text())["source_hash"] == source.hash
        assert (tmp_path / "run/1/method.py").read_bytes() == method.read_bytes()
