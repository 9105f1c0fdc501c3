"""Several processes that train together: the gradients of one process, one set of files, and one resumed run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unlearnbench import evaluate
from unlearnbench.errors import RunError
from unlearnbench.io.tables import read_parquet
from unlearnbench.splits import Split
from unlearnbench.training.data_parallel import Processes
from unlearnbench.training.ledger import read_metrics
from unlearnbench.training.options import TrainerOptions
from unlearnbench.workers.jobs import Compute

SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from local_judge import local_judge
from safetensors.torch import save_file
from unlearnbench.errors import MethodError
from unlearnbench.method import PoolItem, settings_of
from unlearnbench.methods.grpo import Grpo
from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.transformers import TransformersSampler
from unlearnbench.splits import Split
from unlearnbench.splits.sealed import read_sealed
from unlearnbench.training.build import Models, begin
from unlearnbench.training.data_parallel import join
from unlearnbench.training.loop import Training
from unlearnbench.training.options import TrainerOptions
from unlearnbench.training.run_spec import Limits, RunSpec

split, sealed, out, size = Split(Path(sys.argv[1])), read_sealed(Path(sys.argv[2])), Path(sys.argv[3]), int(sys.argv[4])
processes = join(size)
settings = settings_of(Grpo, sealed.config.recipe, {"prompts_per_step": 24, "kl": 0.01, "entropy": 0.01})

def training(models, name, steps, options=TrainerOptions()):
    judge = local_judge(split, out / name) if processes.first else None  # which speaks for all
    return Training(Grpo(settings), [PoolItem(*problem) for problem in sealed.pool], models, judge,
                    RunSpec("test", 1, Limits(None, steps), out / name, "test"), processes=processes, options=options)

policy, reference = load_policy(sealed.policy), load_policy(sealed.policy)
run = training(Models(policy, reference, TransformersSampler(policy)), "run", 1)
run.resume()
groups = run._choose(run._collect())
batch = run._batch(groups)
told = run.passes.backward(batch, run.passes.reference_logprobs([batch])[0])
run.processes.sum_gradients(list(policy.model.parameters()))
run.processes.require_same([batch.digest()], "Grpo", 0)
try:
    run.processes.require_same([f"another in {processes.rank}"], "Odd", 3)
    refused = ""
except MethodError as problem:
    refused = str(problem)

def shared(steps):  # two processes share the weights, and save memory as they may; one process does neither
    options = TrainerOptions() if size == 1 else TrainerOptions(shard="fsdp2", gradient_checkpointing=True,
                                                                logprob_chunk=40)
    models = begin(sealed.policy, settings, options, processes, Engine(), revision=None, prompt_format="raw",
                   root="test")
    run = training(models, "shared", steps, options)
    run.resume()
    run.run()
    run.save()
    return sum(p._local_tensor.numel() if size > 1 else p.numel() for p in run.trained)

shared(2)
held = shared(3)
if processes.first:
    (out / "held.txt").write_text(repr(held))
    save_file({name: p.grad.clone() for name, p in policy.model.named_parameters()}, out / "gradients.safetensors")
    (out / "told.txt").write_text(repr((told, run.meter.state(), [len(g) for g in groups], refused)))
"""


def _gradients(split: Path, sealed: Path, out: Path, size: int) -> tuple[dict[str, torch.Tensor], Any]:
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    meeting["PYTHONPATH"] = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(split), str(sealed), str(out), str(size)],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(size)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()[-2000:]
    return load_file(out / "gradients.safetensors"), eval((out / "told.txt").read_text())  # our own file


def test_two_processes_have_the_gradients_of_one(small_split: Split, tmp_path: Path) -> None:
    from unlearnbench.splits import seal

    sealed = seal(small_split, tmp_path / "sealed")
    one, (told, meter, groups, alone) = _gradients(small_split.path, sealed, tmp_path / "one", 1)
    two, (told_too, meter_too, groups_too, refused) = _gradients(small_split.path, sealed, tmp_path / "two", 2)
    assert groups == groups_too
    assert alone == ""  # a process by itself differs from nobody
    assert refused.startswith("Odd did not do the same in every process in step 3")
    assert meter == meter_too
    largest = max(float(gradient.abs().max()) for gradient in one.values())
    assert largest > 1e-3
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5 * max(1.0, largest)
    for name in ("loss", "kl", "entropy", "clipped"):
        assert told[name] == pytest.approx(told_too[name], abs=1e-6)
    _share_the_weights(tmp_path / "one", tmp_path / "two")


def _share_the_weights(one: Path, two: Path) -> None:
    """Two processes with FSDP2 have after two steps, and one more after a resume, the weights and moments of one."""
    held, shares = (int((place / "held.txt").read_text()) for place in (one, two))
    assert 0.4 * held < shares < 0.6 * held
    for line, ours in zip(read_metrics(one / "shared"), read_metrics(two / "shared"), strict=True):
        assert line["rollouts"] == ours["rollouts"] and line["flops"] == ours["flops"]
        assert line["loss"] == pytest.approx(ours["loss"], abs=1e-5)
    assert len(read_metrics(two / "shared")) == 3
    for name in ("model", "optimiser"):
        expected, found = (load_file(place / f"shared/checkpoint/{name}.safetensors") for place in (one, two))
        assert expected.keys() == found.keys()
        assert max(float((expected[key] - found[key]).abs().max()) for key in expected) < 1e-5
    same = [(place / "shared/checkpoint/config.json").read_text() for place in (one, two)]
    assert same[0] == same[1]


def test_parts_come_together_in_their_order() -> None:
    values = list(range(7))
    parts = [Processes(rank, 3).own(values) for rank in range(3)]
    assert sorted(value for part in parts for value in part) == values
    assert [parts[k % 3][k // 3] for k in values] == values
    assert Processes().together(values, 7) == values


STOPS = """import os, pathlib
import unlearnbench as ub

class Stops(ub.Method):
    def on_step_end(self, step, metrics):
        once = pathlib.Path("once")  # in the folder that its processes may write to
        if step == 4 and self.run.rank_of_test and not once.exists():
            once.write_text("")
            os.kill(os.getpid(), 9)

    def setup(self):
        self.run.rank_of_test = os.environ.get("RANK") == "1"
"""


@pytest.mark.slow
def test_one_of_two_processes_killed_loses_nothing(small_split: Split, tmp_path: Path) -> None:
    method = tmp_path / "stops.py"
    method.write_text(STOPS)
    shared = Compute(processes=2, trainer=TrainerOptions(shard="fsdp2"))  # then without it: what is saved is whole
    with pytest.raises(RunError, match="seed 1 of stops") as caught:
        evaluate(str(method), small_split, 1, samples=2, out=tmp_path / "run", compute=shared)
    assert "\n" not in str(caught.value)
    result = evaluate(str(method), small_split, 1, samples=2, out=tmp_path / "run", compute=Compute(processes=2))
    lines = read_metrics(tmp_path / "run/1")
    assert [line["step"] for line in lines] == list(range(6))
    rollouts = sum(read_parquet(path).num_rows for path in (tmp_path / "run/1/rollouts").glob("*.parquet"))
    assert rollouts == sum(line["rollouts"] for line in lines)
    assert result.cost.flops == lines[-1]["flops"]
    cost = json.loads((tmp_path / "run/1/cost.json").read_text())
    assert cost["verifier_calls"] == rollouts
