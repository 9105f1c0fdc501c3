"""An engine of two processes (tensor parallel) draws from the policy, also after its weights have changed."""

from __future__ import annotations

import numpy as np
import torch

from unlearnbench.draws import stream
from unlearnbench.policy import load_policy
from unlearnbench.samplers import Engine, Request, Sampler
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


if __name__ == "__main__":  # the engine's processes import this file
    main()
