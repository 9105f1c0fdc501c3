"""The part of `diagnose` that holds a policy: each item's rollouts, then each item's gradient.

    items → chunks: given rollouts first, then sampled ones, judged → gathered/<chunk>.parquet
    rollouts → blocks: gradients → vectors (a memory map of float32), with a mark for each finished item

Chunks and blocks are cut alike whatever the number of processes, so that results do not depend on it; what is there is
not made again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field

from unlearnbench.diagnosis.gradients import Adapter, Parameters, Weights, dimension, item_gradients, pass_bytes
from unlearnbench.diagnosis.inputs import ROLLOUT
from unlearnbench.errors import DataError, VerifierError
from unlearnbench.io import tables
from unlearnbench.policies.packing import ItemRollouts
from unlearnbench.policies.policy import Policy, load_policy
from unlearnbench.policies.samplers.sampler import Completions, Request
from unlearnbench.policies.samplers.transformers import CACHE_BYTES, TransformersSampler
from unlearnbench.records import Rule
from unlearnbench.rng import stream
from unlearnbench.verifier import Verifier
from unlearnbench.workers.environment import one_thread
from unlearnbench.workers.messages import Items, Work
from unlearnbench.workers.worker import Link

CHUNK = 32
"""Items whose rollouts are sampled together."""

GATHERED = pa.schema(
    [
        ("item_id", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("found", pa.int32()),  # rollouts of the wanted kind, at most as many as were wanted
        ("sampled", pa.int32()),
        ("rollouts", pa.list_(ROLLOUT)),
    ]
)


class DiagnosisJob(Work):
    """What both kinds of jobs of a diagnosis are about."""

    work: str
    """Folder of the diagnosis' own files."""
    policy: str
    revision: str | None
    prompt_format: Literal["raw", "chat"]


class GatherJob(DiagnosisJob):
    """Gather the rollouts of some chunks of items."""

    rule: Rule
    reward: Literal["correct", "group"]
    wanted: int = Field(ge=1)
    """Rollouts of each item."""
    cap: int = Field(ge=0)
    """Rollouts that may be sampled of an item."""
    max_tokens: int = Field(ge=0)
    memory: int
    root: str
    file: str
    """Where the given rollouts come from."""
    chunks: Sequence[int]


class GradientJob(DiagnosisJob):
    """Compute the gradients of some blocks of items."""

    vectors: str
    marks: str
    parts: int
    dimension: int
    parameters: Mapping[str, Any]
    adapter_seed: int
    max_tokens: int
    entropy_share: float
    blocks: Sequence[tuple[int, int]]


def load(job: DiagnosisJob) -> Policy:
    """The policy that a job is about, in float32 on every device."""
    return load_policy(job.policy, revision=job.revision, prompt_format=job.prompt_format, trained=True)


def run_gather(job: GatherJob, link: Link) -> None:
    """A worker's share of the rollouts."""
    one_thread()
    gather(load(job), job, lambda items: link.report(Items(items=items)))


def run_gradients(job: GradientJob, link: Link) -> None:
    """A worker's share of the gradients."""
    one_thread()
    fill(load(job), job, lambda items: link.report(Items(items=items)))


def described(policy: Policy, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What planning needs to know: length of a vector, bytes of the weights and of a pass, the device.

    `not_finite` names a weight without which no gradient can be computed and with values that are not numbers, if there
    is one; in an embedding, such values spoil only the items that read them. Raises PolicyError for targets or names
    that the policy does not have.
    """
    model = policy.model
    read = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    read -= {id(model.get_output_embeddings().weight)}
    weights = ((name, weight) for name, weight in model.named_parameters() if id(weight) not in read)
    return {
        "dimension": dimension(model, chosen(parameters, 0)),
        "weights": 4 * policy.parameters,
        **pass_bytes(model),
        "device": policy.device.type,
        "revision": getattr(model.config, "_commit_hash", None),
        "not_finite": next((name for name, weight in weights if not bool(torch.isfinite(weight).all())), None),
    }


def chosen(parameters: Mapping[str, Any], seed: int) -> Parameters:
    """What gradients are taken of, from its JSON form."""
    if parameters["kind"] == "lora":
        return Adapter(
            seed=seed, rank=parameters["rank"], alpha=parameters["alpha"], targets=tuple(parameters["targets"])
        )
    return Weights(tuple(parameters["names"]))


# --- rollouts -------------------------------------------------------------------------------------------------------


def gathered_file(work: Path, chunk: int) -> Path:
    return work / "gathered" / f"{chunk:05d}.parquet"


def gather(policy: Policy, job: GatherJob, done: Callable[[int], None]) -> None:
    """Write the rollouts of each chunk of items; `done` is called with how many items are finished.

    Raises DataError for token ids that the policy does not have, VerifierError if the verifier itself fails.
    """
    work = Path(job.work)
    items = tables.read_parquet(work / "items.parquet").to_pylist()
    given: dict[str, list[dict[str, Any]]] = {}
    for row in tables.read_parquet(work / "given.parquet").to_pylist():
        given.setdefault(row["item_id"], []).append(row)
    sampler = TransformersSampler(policy, _rows_at_once(policy, job.memory, job.max_tokens))
    with Verifier(rule=job.rule) as verifier:
        for chunk in job.chunks:
            mine = [
                _Gathering(job, policy, item, given.get(item["item_id"], ()))
                for item in items[chunk * CHUNK : (chunk + 1) * CHUNK]
            ]
            while waiting := [item for item in mine if item.step]:
                requests = [Request(item.prompt_ids, item.step, item.key, first=item.sampled) for item in waiting]
                drawn = sampler.generate(requests, temperature=1.0, top_p=1.0, max_tokens=job.max_tokens)
                for item, completions in zip(waiting, drawn, strict=True):
                    item.take(completions, policy, verifier)
            rows = [item.row() for item in mine]
            tables.write_parquet(gathered_file(work, chunk), pa.Table.from_pylist(rows, schema=GATHERED))
            done(len(mine))


def _rows_at_once(policy: Policy, memory: int, max_tokens: int) -> int:
    """Rollouts to decode at once: what their keys, values (held twice while they grow) and scores may take."""
    config = policy.model.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kept = 16 * config.num_hidden_layers * heads * width * 2 * max_tokens
    scores = 40 * int(config.vocab_size)
    return int(max(8, min(8192, min(memory, CACHE_BYTES[0]) // (kept + scores))))


@dataclass
class _Gathering:
    """One item's rollouts so far: the first `wanted` correct ones in sampling order, or the first of any kind."""

    job: GatherJob
    policy: Policy
    item: Mapping[str, Any]
    given: Sequence[Mapping[str, Any]]
    sampled: int = 0
    rollouts: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_ids = self.policy.encode(self.item["prompt"])
        self.key = stream(self.job.root, self.item["item_id"])
        for row in self.given:
            tokens = row["token_ids"] if row["token_ids"] is not None else _tokens(self.policy, row)
            if max(tokens) >= self.policy.model.config.vocab_size:
                raise DataError(
                    f"{self.job.file}, row {row['row']}, field 'token_ids': {max(tokens)} is not a token of "
                    f"{self.policy.source}; give ids of its tokenizer, or completions"
                )
            text = row["completion"] if row["completion"] is not None else self.policy.decode(tokens)
            self._keep(row["row"], "file", text, tokens, row["finish"], row["correct"])

    @property
    def step(self) -> int:
        """How many to sample next: as many again as there were, until enough are found or the cap is reached."""
        lacking = self.job.wanted - len(self.rollouts)
        if lacking <= 0 or self.item["answer"] is None:
            return 0
        size = lacking if self.job.reward == "group" else max(2 * self.job.wanted, self.sampled)
        return int(min(size, self.job.cap - self.sampled))

    def take(self, completions: Completions, policy: Policy, verifier: Verifier) -> None:
        """Judge samples, equal ones once, and keep what is wanted of them."""
        unique, inverse = np.unique(completions.tokens, axis=0, return_inverse=True)
        tokens = [row[row >= 0].tolist() for row in unique]
        texts = [policy.decode(row) for row in tokens]
        verdicts = verifier.verify_many([(self.item["answer"], text) for text in texts])
        if any(verdict.correct is None for verdict in verdicts):
            raise VerifierError(
                f"the verifier failed twice on a completion of {self.item['item_id']}; run the same command again: it "
                "resumes it"
            )
        for number, place in enumerate(inverse.reshape(-1).tolist()):
            finish = "stop" if completions.stopped[number] else "length"
            correct = bool(verdicts[place].correct)
            self._keep(self.sampled + number, "sampled", texts[place], tokens[place], finish, correct)
        self.sampled += len(completions)

    def row(self) -> dict[str, Any]:
        return {
            "item_id": self.item["item_id"],
            "prompt_ids": self.prompt_ids.tolist(),
            "found": len(self.rollouts),
            "sampled": self.sampled,
            "rollouts": self.rollouts if len(self.rollouts) == self.job.wanted else [],
        }

    def _keep(
        self, sample: int, origin: str, text: str, tokens: Sequence[int], finish: str | None, correct: bool
    ) -> None:
        if len(self.rollouts) < self.job.wanted and (correct or self.job.reward == "group"):
            self.rollouts.append(
                {
                    "sample": sample,
                    "origin": origin,
                    "completion": text,
                    "token_ids": list(tokens),
                    "finish": finish,
                    "correct": correct,
                }
            )


def _tokens(policy: Policy, row: Mapping[str, Any]) -> list[int]:
    """A completion's tokens, with the end token that the policy would have drawn, unless it was cut at a length."""
    ids = [int(token) for token in policy.tokenizer.encode(row["completion"], add_special_tokens=False)]
    ended = ids and ids[-1] in policy.stop_ids
    if ended or (row["finish"] == "length" and ids):
        return ids
    own = policy.tokenizer.eos_token_id
    return [*ids, own if own in policy.stop_ids else policy.stop_ids[0]]


# --- gradients ------------------------------------------------------------------------------------------------------


def read_items(table: pa.Table) -> list[ItemRollouts]:
    """Items of used.parquet, in the order of their vectors."""
    return [
        ItemRollouts(
            row["item_id"],
            tuple(row["prompt_ids"]),
            tuple(tuple(tokens) for tokens in row["responses"]),
            tuple(row["weights"]),
        )
        for row in table.to_pylist()
    ]


def fill(policy: Policy, job: GradientJob, done: Callable[[int], None]) -> None:
    """Fill the vectors of each block of items and mark them; `done` is called with how many items are finished."""
    used = tables.read_parquet(Path(job.work) / "used.parquet")
    used = used.select(["item_id", "prompt_ids", "responses", "weights"])
    vectors = np.memmap(job.vectors, np.float32, "r+", shape=(len(used), job.parts, job.dimension))
    marks = np.memmap(job.marks, np.uint8, "r+", shape=(len(used),))
    for start, stop in job.blocks:
        item_gradients(
            policy.model,
            read_items(used.slice(start, stop - start)),
            vectors[start:stop],
            parameters=chosen(job.parameters, job.adapter_seed),
            max_tokens=job.max_tokens,
            entropy_share=job.entropy_share,
        )
        vectors.flush()  # before the marks, so that a mark is never there without its vector
        marks[start:stop] = 1
        marks.flush()
        done(stop - start)
