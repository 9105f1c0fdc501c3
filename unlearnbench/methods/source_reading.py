"""What the source of a method says of it: settings that nothing reads, and what it asks the judge for."""

from __future__ import annotations

import ast
import inspect
import sys
from typing import Any

from unlearnbench.method import Method
from unlearnbench.records import READS, Recipe

OTHER_NAMES = {
    "beta": "kl",
    "kl_coef": "kl",
    "kl_loss_coef": "kl",
    "entropy_coef": "entropy",
    "entropy_coeff": "entropy",
    "epsilon": "clip_low and clip_high",
    "clip_ratio": "clip_low and clip_high",
    "cliprange": "clip_low and clip_high",
    "epsilon_low": "clip_low",
    "epsilon_high": "clip_high",
    "clip_ratio_low": "clip_low",
    "clip_ratio_high": "clip_high",
    "num_generations": "group_size",
    "rollout_n": "group_size",
    "lr": "learning_rate",
    "num_iterations": "updates_per_batch",
    "max_completion_length": "max_tokens",
    "max_response_length": "max_tokens",
    "max_grad_norm": "gradient_clip",
    "scale_rewards": "standardise",
    "loss_type": "aggregation",
    "max_steps": "steps",
    "train_batch_size": "prompts_per_step",
    "lora_r": "lora.rank",
}
"""What other trainers call fields of the recipe."""


SERVICES = {
    "valid_steps": "process",
    "answer": "answer",
    "verdict": "verdict",
    "solution": "solution",
    "group": "labels",
    "similar": "similar",
    "sub_problems": "sub_problems",
}
"""What each service of `self.run` reads, by its name in `records.READS`."""


def unread_settings(method: type[Method]) -> dict[str, str | None]:
    """Settings of a method's own that no code of it names, each with the recipe's field that may have been meant."""
    own = {
        name
        for cls in method.Settings.__mro__
        if issubclass(cls, Recipe) and cls is not Recipe
        for name in inspect.get_annotations(cls)
        if name not in Recipe.model_fields
    }
    read = {name for tree in _trees(method) for name in _names(tree)}
    if "model_dump" in read:  # all of them at once
        return {}
    return {name: OTHER_NAMES.get(name) for name in sorted(own - read)}


def privileged_reads(method: type[Method]) -> list[str]:
    """What a method's code may ask the judge for, names of READS in their order; a run notes what it did ask for."""
    found = {"base"} if method.start != "base" else set()
    for tree in _trees(method):
        names = _names(tree)
        found |= {SERVICES[name] for name in _services(tree) & SERVICES.keys()}
        found |= {"teacher"} if "teacher" in names and method.track == "teacher" else set()
    return [name for name in READS if name in found]


def _trees(method: type[Method]) -> list[ast.Module]:
    """The files that the classes of a method come from, each once."""
    sources = [_source(cls) for cls in method.__mro__ if issubclass(cls, Method) and cls is not Method]
    return [ast.parse(source) for source in dict.fromkeys(sources)]


def _services(tree: ast.AST) -> set[str]:
    """What is asked of `self.run`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "run"
    }


def _source(cls: type[Any]) -> str:
    """The file of a class, as it was when it was loaded; empty where there is none."""
    module = sys.modules.get(cls.__module__)
    loader = getattr(module, "__loader__", None)
    try:
        return str(loader.get_source(cls.__module__) or "") if loader is not None else ""
    except (AttributeError, ImportError, OSError):
        return ""


def _names(tree: ast.AST) -> set[str]:
    """Attributes that code reads, and names that it may read them by (`getattr(settings, "name")`)."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} | {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
