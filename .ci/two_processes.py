"""An engine of two processes draws from the policy, also after its weights have changed, and ends with who began it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch

from unlearnbench.policies.policy import load_policy
from unlearnbench.policies.samplers.engine import Engine
from unlearnbench.policies.samplers.sampler import Request, Sampler
from unlearnbench.rng import stream
from unlearnbench.splits import load_split

TOLERANCE = 1e-3


def gap(sampler: Sampler, requests: list[Request], model: torch.nn.Module) -> float:
    """Largest difference between the engine's log-probabilities and those of the policy itself."""
    worst = 0.0
    drawn = sampler.generate(requests, temperature=1.0, top_p=1.0, max_tokens=40)
    for request, completions in zip(requests, drawn, strict=True):
        start = len(request.prompt_ids)
        for row, length in enumerate(completions.lengths):
            ids = torch.from_numpy(np.concatenate([request.prompt_ids, completions.tokens[row, :length]]).astype(int))
            with torch.no_grad():
                scores = torch.log_softmax(model(ids[None]).logits[0, start - 1 : -1].float(), -1)
            expected = scores.gather(-1, ids[start:, None])[:, 0].numpy()
            worst = max(worst, float(np.abs(completions.logprobs[row, :length] - expected).max()))
    return worst


def main() -> None:
    torch.set_num_threads(1)
    split = load_split("micro")
    policy = load_policy(split.policy_path, trained=True)
    sampler = Engine("vllm", {"tensor_parallel_size": 2}).sampler(policy, training=True)
    requests = [Request(policy.encode(item.prompt), 8, stream("two", item.item_id)) for item in split.items[:20]]
    first = gap(sampler, requests, policy.model)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    stale = gap(sampler, requests, policy.model)
    sampler.weights_changed()
    fresh = gap(sampler, requests, policy.model)
    print(f"largest difference at first {first:.2g}, with old weights {stale:.2g}, with the new ones {fresh:.2g}")
    assert first < TOLERANCE < stale and fresh < TOLERANCE
    print("engine", *(child.pid for child in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def gone(process: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def outer() -> None:
    """Run `main` in a process that kills itself, and wait for its engine to end, too."""
    done = subprocess.run([sys.executable, __file__, "inner"], stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    assert done.returncode == -signal.SIGKILL, done.returncode
    engines = [int(word) for word in done.stdout.splitlines()[-1].split()[1:]]
    assert engines
    until = time.monotonic() + 60
    while not all(map(gone, engines)):
        assert time.monotonic() < until, f"the engine {engines} lives on after the process that began it"
        time.sleep(0.2)


if __name__ == "__main__":  # the engine's processes import this file
    main() if sys.argv[1:] == ["inner"] else outer()
