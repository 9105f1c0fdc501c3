"""Sampler and trainer compute a token's probability twice: how far they may differ, and what corrects for it.

A sampler that runs the trainer's own model (`exact`) agrees with it up to float32 rounding, which is checked before
the first update. Another engine does not: other kernels, another precision. Then the policy that is improved upon is
the trainer's own before the step's updates, and each token is weighted with the ratio of that policy to the sampler,
cut off at CAP (truncated importance sampling: Yao et al. 2025, "Your efficient RL framework secretly brings you
off-policy RL training"; Espeholt et al. 2018, 1802.01561, for cutting off above only).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from unlearnbench.errors import RunError
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.samplers.sampler import Sampler
from unlearnbench.training.batch import TokenBatch

CAP = 2.0
MAX_MISMATCH = 1e-3  # ten times what float32 was seen to leave between sampler and trainer
MAX_KL = 0.1  # nats per token; bfloat16 was reported to leave a hundredth of it (verl#4070)


def check_sampler(
    policy: Policy, sampler: Sampler, metrics: Mapping[str, float | int | None], precision: str = "float32"
) -> None:
    """Raise RunError where sampler and trainer disagree before any update, on what they compute alike (LOOP 2).

    `sampler_mismatch` is the largest difference of two log-probabilities, `sampler_kl` the estimated divergence in
    nats per token.
    """
    mismatch, kl = (float(metrics[name] or 0.0) for name in ("sampler_mismatch", "sampler_kl"))
    full = policy.model.dtype == torch.float32 and precision == "float32"
    rounding = policy.device.type == "cpu" and full
    if sampler.exact and rounding and mismatch > MAX_MISMATCH:
        raise RunError(
            f"sampler and trainer differ by {mismatch:.2g} in a log-probability before the first update; this "
            "policy's architecture is not sampled right: please report it with its config.json"
        )
    if kl > MAX_KL and sampler.exact:
        raise RunError(
            f"sampler and trainer are {kl:.2g} nats per token apart before the first update; train without "
            "--trainer precision=bf16 or logprob_chunk, and report which of them it was with the policy's config.json"
        )
    if kl > MAX_KL:
        raise RunError(
            f"sampler and trainer are {kl:.2g} nats per token apart before the first update, so the engine draws from "
            "another policy; choose a more precise dtype for it, or --sampler transformers"
        )


def truncated(batch: TokenBatch, behaviour: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Replacements for another engine's log-probabilities in the loss, and the weights of the tokens.

    `behaviour` holds the sampler's log-probabilities, `before` the trainer's own before the step's updates, all of
    shape (rows, tokens). Tokens drawn in another context or by an older policy are left as they are: what their
    ratio means is the method's to say.
    """
    ours = (batch.mask > 0) & batch.comparable & torch.isfinite(batch.behaviour)
    ratio = torch.where(ours, before - behaviour, torch.zeros_like(before)).exp().clamp(max=CAP)
    return torch.where(ours, before, behaviour), batch.weights * ratio
