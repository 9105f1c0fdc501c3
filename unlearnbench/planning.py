"""What a run will cost and what it can show, before any of it is paid for.

probe a few real steps → tokens and FLOPs → time, memory and disk; the split's null control → chance → smallest gain
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from unlearnbench import cost
from unlearnbench.assumed import pool_of
from unlearnbench.cost import Space, Timing, Work
from unlearnbench.detection import Power, power_of
from unlearnbench.devices import UTILISATION, Precision
from unlearnbench.errors import RunError
from unlearnbench.methods import locate
from unlearnbench.probe import Tokens, affordable, probe
from unlearnbench.records import Record
from unlearnbench.splits import Split

PART_OF_PROBE = 0.3  # of the progress bar


class Planned(Record):
    split: str
    split_hash: str
    method: str
    parameters: int
    seeds: int
    samples: int
    multiple: float
    training: Work
    """Of one seed."""
    evaluation: Work
    """Of one seed."""
    total_tokens: Tokens
    total_flops: int
    timing: Timing
    space: Space
    power: Power


def plan(
    split: Split,
    method: str = "grpo",
    *,
    seeds: int = 3,
    samples: int = 32,
    multiple: float = 1.0,
    settings: Mapping[str, Any] | None = None,
    device: str | None = None,
    precision: Precision = "float32",
    utilisation: float = UTILISATION,
    length: float | None = None,
    workers: int | None = None,
    experiments: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Planned:
    """What `eval` with the same arguments will cost, and the smallest conversion gain it can show.

    `length` is the mean number of tokens of a rollout, for where nothing measured tells. Raises RunError for a device
    that is not in the table, or a policy of unknown size; MethodError as the method's own steps do; SplitError and
    DataError as reading the split does.
    """
    source = locate(method)
    published = None if device is None else cost.device(device)
    tell = progress or (lambda _: None)
    control = split.control("null_control", f"{multiple:g}x") or split.control("null_control", "1x")
    grpo = source.module == "unlearnbench.methods.grpo" and not settings
    reference = control if grpo and control is not None and control.result is not None else None
    tried = None
    pool = pool_of(split)
    if (published is None or reference is None) and pool.assumption is None and (prompts := affordable(split)):
        tried = probe(split, source, settings or {}, samples, prompts, lambda share: tell(PART_OF_PROBE * share))
    tell(PART_OF_PROBE)
    parameters = split.config.base_policy.parameters or (tried.parameters if tried else None)
    if parameters is None:
        raise RunError(
            f"{split.path / 'split.yaml'}, field base_policy.parameters: it is not stated, so no FLOPs follow; add it"
        )
    training = cost.training(split, reference, tried, parameters, multiple, length, pool.prompt)
    evaluation = cost.evaluation(split, pool, control, tried, parameters, samples, length)
    adapted = (settings or {}).get("lora", split.config.recipe.lora) is not None
    at_once = 1 if published else min(seeds, workers or os.cpu_count() or 1)
    timing = cost.timing(split, control, tried, published, precision, utilisation, training, evaluation, seeds, at_once)
    total = training.tokens.model_dump()
    for name, value in evaluation.tokens.model_dump().items():
        total[name] = seeds * (total[name] + value)
    return Planned(
        split=split.name,
        split_hash=split.hash,
        method=source.name,
        parameters=parameters,
        seeds=seeds,
        samples=samples,
        multiple=multiple,
        training=training,
        evaluation=evaluation,
        total_tokens=Tokens(**total),
        total_flops=seeds * (training.flops + evaluation.flops),
        timing=timing,
        space=cost.space(split, tried, published, training, evaluation, parameters, seeds, at_once, adapted=adapted),
        power=power_of(
            split,
            pool,
            multiple,
            seeds,
            samples,
            experiments,
            lambda share: tell(PART_OF_PROBE + (1 - PART_OF_PROBE) * share),
        ),
    )
