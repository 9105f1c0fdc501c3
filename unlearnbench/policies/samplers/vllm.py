"""Sampling with vLLM: the same requests, the same streams, another engine.

Every rollout is a request of its own with a seed from its stream and counter, so rollouts are distributed as those of
the transformers sampler and depend on no other request; they are not the same draws, and not the same on another
machine. The engine is given the policy's weights at the start and after every update, and then forgets what it has
computed of prompts. Its log-probabilities are close to the trainer's and not equal: the loop corrects for that
(`mismatch.py`).

One engine lives in this process (`tensor_parallel_size` 1, no other processes beside this one) and takes the weights
from memory; otherwise it lives in processes of its own, which read them from a folder in memory.
"""

from __future__ import annotations

import inspect
import logging
import multiprocessing
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unlearnbench.errors import PolicyError, RunError
from unlearnbench.policies.policy import Policy
from unlearnbench.policies.samplers.pad_heads import head_size, widened_config, widened_weights
from unlearnbench.policies.samplers.sampler import Completions, Request
from unlearnbench.rng import lanes

PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size")
LONGEST_SOCKET_FOLDER = 107 - len("/") - 36
"""Characters of the folder of vLLM's sockets: a socket's path has at most 107, and each is named by a UUID."""
SHARE_WHEN_TRAINING = 0.3
"""Share of a GPU's memory that the engine may take where a trainer works on the same GPU."""
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # several seeds at once share the cores
    "TORCH_COMPILE_DISABLE": "1",  # its two compiled helpers take longer to compile than they save
}

_OPTIONS: dict[str, Any] = {
    "skip_tokenizer_init": True,
    "logprobs_mode": "processed_logprobs",  # of the tokens' distribution at the sampling temperature
    "generation_config": "vllm",  # not the folder's own temperature etc.
    "enable_prefix_caching": True,
    "disable_log_stats": True,
    "seed": 0,
}
_ON_CPU: dict[str, Any] = {
    "dtype": "float32",
    "enforce_eager": True,
    # A prompt that is read in parts sets its seeded generator back, which a generator on a CPU cannot (0.32).
    "enable_chunked_prefill": False,
}


class VllmSampler:
    """Draws completions from a policy with vLLM. `options` go to `vllm.LLM` as they are.

    `training` says that the policy is trained in this process, on the same device.
    Raises PolicyError where vLLM cannot hold the policy, RunError where an option is wrong.
    """

    exact = False

    def __init__(self, policy: Policy, options: Mapping[str, Any] | None = None, *, training: bool = True) -> None:
        self.policy = policy
        given = dict(options or {})
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._apart = together or any(given.get(name, 1) != 1 for name in PARALLEL)
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1" if self._apart else "0"
        if len(sockets := tempfile.gettempdir()) > LONGEST_SOCKET_FOLDER:  # seen from the engine's working folder
            os.environ.setdefault("VLLM_RPC_BASE_PATH", os.path.relpath(sockets))
        on_cpu = not torch.cuda.is_available()
        self._size: int | None = None
        overrides = self._overrides() if on_cpu else {}
        self._untied = on_cpu
        options = {**_OPTIONS, **(_ON_CPU if on_cpu else {}), "hf_overrides": overrides}
        if training and not on_cpu:
            options["gpu_memory_utilization"] = SHARE_WHEN_TRAINING
        if self._apart:
            with self._stored() as folder:
                self._llm = self._start({**options, "model": str(folder), "load_format": "safetensors", **given})
            self._watch = _end_with_this_process([child.pid for child in multiprocessing.active_children()])
        else:
            self._llm = self._start({**options, "model": policy.source, "load_format": "dummy", **given})
            self.weights_changed()

    def generate(
        self, requests: Sequence[Request], *, temperature: float, top_p: float, max_tokens: int
    ) -> list[Completions]:
        """Completions of every request, in order. With top_p below 1 their log-probabilities are unknown (NaN)."""
        from vllm import SamplingParams

        wanted = 0 if top_p == 1 else None  # those of the nucleus alone would be another distribution's
        prompts, settings = [], []
        for request in requests:
            prompt = {"prompt_token_ids": request.prompt_ids.tolist()}
            for lane in lanes(request.key, request.first + np.arange(request.n, dtype=np.int64)):
                prompts.append(prompt)
                settings.append(
                    SamplingParams(
                        temperature=temperature,
                        top_p=top_p,
                        max_tokens=max_tokens,
                        seed=int(lane >> np.uint64(1)),  # vLLM's seeds have a sign
                        stop_token_ids=list(self.policy.stop_ids),
                        logprobs=wanted,
                        flat_logprobs=wanted is not None,
                        detokenize=False,
                    )
                )
        drawn = self._llm.generate(prompts, settings, use_tqdm=False)
        answers, start = [], 0
        for request in requests:
            answers.append(_completions([out.outputs[0] for out in drawn[start : start + request.n]], self.policy))
            start += request.n
        return answers

    def weights_changed(self) -> None:
        """Give the engine the policy's weights and drop its cached prefixes, which rest on the old ones (LOOP 3)."""
        if self._apart:
            with self._stored() as folder:
                self._llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        else:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(self._weights())})
        self._llm.reset_prefix_cache()

    def _weights(self) -> list[tuple[str, torch.Tensor]]:
        """The policy's weights by name, as the engine holds them."""
        tied = set() if self._untied else set(self.policy.model.all_tied_weights_keys)
        named = [(name, weight) for name, weight in self.policy.weights() if name not in tied]
        if self._size is None:
            return named
        return list(widened_weights(named, head_size(self.policy.model.config), self._size))

    @contextmanager
    def _stored(self) -> Iterator[Path]:
        """The weights as a checkpoint in memory, for an engine in processes of its own, as long as it reads them."""
        from safetensors.torch import save_file

        root = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
        folder = Path(tempfile.mkdtemp(prefix="unlearnbench-", dir=root))
        try:
            self.policy.model.config.save_pretrained(folder)
            tensors = {name: weight.detach().cpu().clone() for name, weight in self._weights()}  # tied share memory
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, options: dict[str, Any]) -> Any:
        """The engine. Raises RunError or PolicyError as the constructor does."""
        import vllm

        logging.getLogger("vllm").setLevel(logging.ERROR)
        unknown = [name for name in options if name not in inspect.signature(vllm.EngineArgs).parameters]
        if unknown:
            raise RunError(f"vLLM has no option {unknown[0]!r}; `vllm serve --help=all` lists its options.")
        if options.get("data_parallel_size", 1) != 1:
            raise PolicyError("vLLM has one engine a process; for data parallelism give --processes N, or --workers N.")
        try:
            return vllm.LLM(**options)
        except (ValueError, TypeError, RuntimeError, NotImplementedError) as problem:
            detail = " ".join(str(problem).split())[:300]
            raise PolicyError(
                f"vLLM cannot hold the policy {self.policy.source} ({detail}); change the option that it names, or "
                "sample with --sampler transformers."
            ) from problem

    def _overrides(self) -> dict[str, Any]:
        """Settings that vLLM on a CPU needs for the policy.

        Its head size may have no kernel there. And a matrix that is both embedding and output layer is packed again
        for the one and not for the other when weights change (0.32), so there are two of it.
        """
        from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

        config = self.policy.model.config
        own, sizes = head_size(config), sorted(CPUAttentionBackend.get_supported_head_sizes())
        untied = {"tie_word_embeddings": False}
        if own in sizes:
            return untied
        self._size = next((size for size in sizes if size > own), own)
        return untied | widened_config(config, self._size)


def _end_with_this_process(children: Sequence[int | None]) -> subprocess.Popen[bytes]:
    """A shell that ends these processes when this one has gone, however suddenly: vLLM's own would live on.

    It waits at the end of a pipe that only this process holds open.
    """
    command = ["sh", "-c", 'cat >/dev/null; kill "$@"', "sh", *(str(child) for child in children)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _completions(outputs: Sequence[Any], policy: Policy) -> Completions:
    """vLLM's outputs of one request, right-padded."""
    lengths = np.array([len(output.token_ids) for output in outputs], dtype=np.int64)
    shape = (len(outputs), int(lengths.max(initial=1)))
    tokens = np.full(shape, -1, dtype=np.int32)
    logprobs = np.full(shape, np.nan, dtype=np.float32)
    stopped = np.zeros(len(outputs), dtype=bool)
    for row, output in enumerate(outputs):
        tokens[row, : lengths[row]] = output.token_ids
        if output.logprobs is not None:
            firsts = output.logprobs.start_indices  # the drawn token is the first of each position
            logprobs[row, : lengths[row]] = np.asarray(output.logprobs.logprobs, dtype=np.float32)[firsts]
        stopped[row] = output.finish_reason == "stop" and int(tokens[row, lengths[row] - 1]) in policy.stop_ids
    return Completions(tokens, logprobs, lengths, stopped)
