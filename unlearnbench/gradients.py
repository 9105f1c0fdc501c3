"""The policy gradient of each item, exactly, with respect to a random LoRA adapter or to the weights themselves.

An item's vector is minus the gradient of the mean log-probability of its rollouts' tokens, first over the tokens of a
rollout and then over rollouts: the policy loss at ratio 1 and advantage 1 (PROTOCOL 5; arXiv 2605.16787, section 5). An
adapter's B is 0 at the start, so the gradient of A is exactly 0 and that of B is, for a module y = W x + s B A x,

    dL/dB = s * sum over tokens of (dL/dy) (A x)^T.

So the policy stays frozen: hooks take A x on the way forward and dL/dy on the way back, and one product per row gives
its gradient. A row is a prompt with all rollouts of one part of an item, and the prompt is computed once. A pass lays
many rows end to end, without padding: everything but attention acts on single tokens, and attention is computed piece
by piece, each response with its prompt and itself. Parts (4 by default) hold as many rollouts each; their differences
are what noise is known by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.errors import PolicyError

RANK, ALPHA = 16, 32.0
TARGETS = ("q_proj", "v_proj")
"""What the paper's script adapts: the default of its LoRA library."""
LOGITS = 1 << 22
"""Logits that are held at once."""
_UNSUPPORTED = (
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "logits_scaling",
    "logit_scale",
    "lm_head_multiplier",
)
_ATTENTION = "unlearnbench_rows"


@dataclass(frozen=True, slots=True)
class ItemRollouts:
    """What one item's gradient is made of: responses in order, each with its weight (1 for a correct rollout)."""

    item_id: str
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter at its start: B is 0, A uniform in +-1/sqrt(inputs) from a seed."""

    seed: int = 0
    rank: int = RANK
    alpha: float = ALPHA
    targets: tuple[str, ...] = TARGETS


@dataclass(frozen=True, slots=True)
class Weights:
    """The policy's own parameters whose name holds one of `names`; all of them if it is empty."""

    names: tuple[str, ...] = ()


Parameters = Adapter | Weights


@dataclass(frozen=True, slots=True)
class _Row:
    """A prompt and different responses to it, with each response's weight in the loss of one part of an item."""

    item: int
    part: int
    prompt: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + sum(map(len, self.responses))


def dimension(model: Any, parameters: Parameters) -> int:
    """Length of an item's vector. Raises PolicyError where no module or weight has one of the names."""
    if isinstance(parameters, Adapter):
        return sum(_outputs(module) * parameters.rank for _, module in _targets(model, parameters.targets))
    return sum(weight.numel() for _, weight in _chosen(model, parameters))


def item_gradients(
    model: Any,
    items: Sequence[ItemRollouts],
    out: NDArray[np.float32],
    *,
    parameters: Parameters | None = None,
    max_tokens: int = 2048,
    entropy_share: float = 1.0,
    done: Callable[[int], None] | None = None,
) -> None:
    """Fill `out` (items, parts, dimension) with each part's gradient; an item's vector is the mean over its parts.

    Responses are dealt to the parts in turn, so each part has as many (their number must divide by the parts). A pass
    holds at most `max_tokens` tokens, or one row. With `entropy_share` below 1 only that share of each
    response's tokens counts, those of highest entropy. `done(i)` is told after item i is complete. Not-finite values
    are left in `out` for the caller to see. Raises PolicyError where the policy cannot be used so.
    """
    parameters = parameters or Adapter()
    if out.shape[0] != len(items) or out.shape[2] != dimension(model, parameters):
        raise ValueError(f"out has shape {out.shape}, not ({len(items)}, parts, {dimension(model, parameters)})")
    for name in _UNSUPPORTED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise PolicyError(f"This policy's logits pass through {name}, which gradients do not know; choose another.")
    out[:] = 0
    rows = [row for i, item in enumerate(items) for row in _rows(i, item, out.shape[1])]
    waiting = np.bincount([row.item for row in rows], minlength=len(items))
    frozen = {weight: weight.requires_grad for weight in model.parameters()}
    attention = model.config._attn_implementation
    batches = _batches(rows, max_tokens if isinstance(parameters, Adapter) else 0)
    try:
        for weight in frozen:
            weight.requires_grad_(False)
        _use_attention(model, _ATTENTION)
        if rows:
            _compare(model, rows[0], attention)
        taker = (
            _AdapterGradients(model, parameters)
            if isinstance(parameters, Adapter)
            else _WeightGradients(model, parameters)
        )
        with taker:
            for batch in batches:
                found = taker.of(batch, entropy_share)
                for row, gradient in zip(batch, found, strict=True):
                    out[row.item, row.part] += gradient
                    waiting[row.item] -= 1
                    if done and waiting[row.item] == 0:
                        done(row.item)
    finally:
        for weight, wanted in frozen.items():
            weight.requires_grad_(wanted)
            weight.grad = None
        model.set_attn_implementation(attention)


def max_tokens_for(model: Any, memory: int) -> int:
    """Tokens a pass may hold so that its activations stay within so many bytes, roughly."""
    config = model.config
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", 4 * hidden))
    per_token = 4 * layers * (14 * hidden + 5 * inner) + 8 * hidden
    return max(64, memory // per_token)


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(place: int, item: ItemRollouts, parts: int) -> Iterator[_Row]:
    given = item.weights or (1.0,) * len(item.responses)
    if not item.responses or len(item.responses) % parts:
        raise ValueError(f"item {item.item_id!r} has {len(item.responses)} rollouts, which make no {parts} equal parts")
    for part in range(parts):
        share: dict[tuple[int, ...], float] = {}  # equal responses are computed once
        responses = item.responses[part::parts]
        for response, weight in zip(responses, given[part::parts], strict=True):
            share[response] = share.get(response, 0.0) + weight / len(responses)
        yield _Row(place, part, item.prompt, tuple(share), tuple(share.values()))


def _batches(rows: Sequence[_Row], max_tokens: int) -> Iterator[Sequence[_Row]]:
    """Rows in passes of at most so many tokens; one row a pass if that is 0."""
    start = held = 0
    for stop, row in enumerate(rows):
        if stop > start and held + row.length > max_tokens:
            yield rows[start:stop]
            start, held = stop, 0
        held += row.length
    yield rows[start:]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Neighbouring tokens that see one another up to themselves, and all tokens of their context, another piece."""

    size: int
    context: int | None


@dataclass(frozen=True, slots=True)
class _Laid:
    """Rows end to end."""

    ids: Tensor  # (1, tokens)
    positions: Tensor  # (1, tokens)
    pieces: tuple[_Piece, ...]
    spans: tuple[slice, ...]  # the tokens of each row
    sources: Tensor  # (predictions,): the token that predicts
    targets: Tensor  # (predictions,)
    weights: Tensor  # (predictions,): in the row's loss
    responses: Tensor  # (predictions,): which response, counted over all rows


def _lay(rows: Sequence[_Row], dtype: torch.dtype, device: torch.device) -> _Laid:
    ids: list[int] = []
    positions: list[int] = []
    pieces: list[_Piece] = []
    spans: list[slice] = []
    sources: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    responses: list[int] = []
    count = 0
    for row in rows:
        first, end = len(ids), len(ids) + len(row.prompt)
        prompt = len(pieces)
        pieces.append(_Piece(len(row.prompt), None))
        ids += row.prompt
        positions += range(len(row.prompt))
        for response, weight in zip(row.responses, row.weights, strict=True):
            start, read = len(ids), len(response) - 1  # nothing is predicted from a response's last token
            if read:
                pieces.append(_Piece(read, prompt))
            ids += response[:-1]
            positions += range(len(row.prompt), len(row.prompt) + read)
            sources += [end - 1, *range(start, start + read)]
            targets += response
            weights += [weight / len(response)] * len(response)
            responses += [count] * len(response)
            count += 1
        spans.append(slice(first, len(ids)))
    return _Laid(
        torch.tensor([ids], device=device),
        torch.tensor([positions], device=device),
        tuple(pieces),
        tuple(spans),
        torch.tensor(sources, device=device),
        torch.tensor(targets, device=device),
        torch.tensor(weights, dtype=dtype, device=device),
        torch.tensor(responses, device=device),
    )


# --- attention ------------------------------------------------------------------------------------------------------

_pieces: ContextVar[tuple[_Piece, ...]] = ContextVar("pieces")


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention of a pass, piece by piece: (1, heads, tokens, size) each, to (1, tokens, heads, size)."""
    window = rest.get("sliding_window")
    pieces = _pieces.get()
    # Cut at once: the backward pass of many single slices would fill as many whole tensors.
    sizes = [piece.size for piece in pieces]
    queries, keys, values = (torch.split(whole, sizes, 2) for whole in (query, key, value))
    alike: dict[tuple[int, int], list[int]] = {}
    for place, piece in enumerate(pieces):
        alike.setdefault((piece.size, 0 if piece.context is None else pieces[piece.context].size), []).append(place)
    found = [query[:, :, :0]] * len(pieces)
    for (size, before), places in alike.items():
        contexts = [context for place in places if (context := pieces[place].context) is not None]
        plain = not before and window is None
        attended = torch.nn.functional.scaled_dot_product_attention(
            _stacked(queries, places),
            torch.cat([_stacked(keys, contexts), _stacked(keys, places)], 2) if before else _stacked(keys, places),
            torch.cat([_stacked(values, contexts), _stacked(values, places)], 2)
            if before
            else _stacked(values, places),
            attn_mask=None if plain else _causal(size, before, window, query.dtype, query.device),
            is_causal=plain,
            scale=scaling,
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for place, one in zip(places, torch.split(attended, 1), strict=True):
            found[place] = one
    return torch.cat(found, 2).transpose(1, 2), None


def _stacked(parts: Sequence[Tensor], places: Sequence[int]) -> Tensor:
    return parts[places[0]] if len(places) == 1 else torch.cat([parts[place] for place in places])


@lru_cache(maxsize=32)  # long rollouts have large ones
def _causal(length: int, before: int, window: int | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, before + length), added to scores: minus infinity where a token does not see another."""
    at = torch.arange(before, before + length, device=device)[:, None]
    other = torch.arange(before + length, device=device)[None]
    seen = other <= at if window is None else (other <= at) & (other > at - window)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill(~seen, float("-inf"))


@torch.no_grad()
def _compare(model: Any, row: _Row, attention: str) -> None:
    """Raise PolicyError where rows end to end do not give what each response gives in a pass of its own.

    So it is with policies in which tokens meet elsewhere than in attention (convolutions, state spaces) or whose
    attention has more to it (sinks): their gradients would be wrong without a word.
    """
    rows = (row, replace(row, responses=row.responses[::-1]))
    laid = _lay(rows, model.dtype, model.device)
    before = _pieces.set(laid.pieces)
    try:
        found = model.base_model(input_ids=laid.ids, position_ids=laid.positions, use_cache=False).last_hidden_state
    finally:
        _pieces.reset(before)
    found = found[0, laid.sources]
    model.set_attn_implementation(attention)
    expected = []
    for one in rows:
        for response in one.responses:
            ids = torch.tensor([[*one.prompt, *response]], device=model.device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
            expected.append(hidden[0, len(one.prompt) - 1 : -1])
    _use_attention(model, _ATTENTION)
    own = torch.cat(expected)
    slack = (1e-4 if model.dtype.itemsize >= 4 else 0.05) * float(own.abs().max())
    if bool(torch.isfinite(own).all()) and not torch.allclose(found, own, rtol=0.0, atol=slack):
        raise PolicyError(
            f"{type(model).__name__} lets tokens meet elsewhere than in plain attention, which gradients do not know."
        )


def _use_attention(model: Any, name: str) -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, _attend)
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
        raise PolicyError(f"{type(model).__name__} has an attention of its own, which gradients do not know.")


# --- passes ---------------------------------------------------------------------------------------------------------


def _backward(model: Any, laid: _Laid, entropy_share: float, embeds_need_grad: bool) -> None:
    """One forward and backward pass of the loss of all rows: minus the weighted log-probabilities of their tokens."""
    embeds = model.get_input_embeddings()(laid.ids)
    if embeds_need_grad:  # nothing else in a frozen policy asks for gradients
        embeds = embeds.detach().requires_grad_()
    before = _pieces.set(laid.pieces)
    try:
        hidden = model.base_model(inputs_embeds=embeds, position_ids=laid.positions, use_cache=False).last_hidden_state
    finally:
        _pieces.reset(before)
    predicting = hidden[0, laid.sources]
    head = model.get_output_embeddings()
    weights = laid.weights
    if entropy_share < 1.0:
        weights = weights * _highest_entropy(predicting.detach(), head, laid.responses, entropy_share)
    # Logits are made a slice at a time, so that a large vocabulary costs no memory.
    held = predicting.detach().requires_grad_()
    size = max(1, LOGITS // int(model.config.vocab_size))
    for states, targets, share in zip(
        *(torch.split(whole, size) for whole in (held, laid.targets, weights)), strict=True
    ):
        losses = torch.nn.functional.cross_entropy(
            head(states).float() if model.dtype.itemsize < 4 else head(states), targets, reduction="none"
        )
        (losses * share).sum().backward()
    predicting.backward(held.grad)


@torch.no_grad()
def _highest_entropy(states: Tensor, head: Any, responses: Tensor, share: float) -> Tensor:
    """1 for the tokens of highest entropy, at least one of each response, rescaled so that means stay means."""
    size = max(1, LOGITS // int(head.weight.shape[0]))
    entropy = torch.cat([_entropy(head(part)) for part in torch.split(states, size)])
    kept = torch.zeros_like(entropy)
    for response in torch.unique(responses):
        place = (responses == response).nonzero()[:, 0]
        count = max(1, round(share * len(place)))
        kept[place[entropy[place].topk(count).indices]] = len(place) / count
    return kept


def _entropy(logits: Tensor) -> Tensor:
    scores = torch.log_softmax(logits, dim=-1)
    return -(scores.exp() * scores).sum(-1)


class _AdapterGradients:
    """Gradients of an adapter's B matrices, row by row of a pass, from hooks on its modules."""

    def __init__(self, model: Any, adapter: Adapter) -> None:
        self._model = model
        self._scale = adapter.alpha / adapter.rank
        generator = torch.Generator().manual_seed(adapter.seed)
        self._downs: list[tuple[Any, Tensor, slice]] = []
        start = 0
        for _, module in _targets(model, adapter.targets):
            inputs, outputs = _inputs(module), _outputs(module)
            down = (torch.rand(adapter.rank, inputs, generator=generator, dtype=torch.float64) * 2 - 1) / inputs**0.5
            stop = start + outputs * adapter.rank
            self._downs.append((module, down.to(model.device, model.dtype), slice(start, stop)))
            start = stop
        self._dimension = start
        self._found = torch.zeros(0, start)
        self._spans: tuple[slice, ...] = ()

    def __enter__(self) -> _AdapterGradients:
        self._handles = [module.register_forward_hook(self._hook(down, where)) for module, down, where in self._downs]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def of(self, rows: Sequence[_Row], entropy_share: float) -> NDArray[np.float32]:
        """(rows, dimension)."""
        laid = _lay(rows, self._model.dtype, self._model.device)
        self._spans = laid.spans
        self._found = torch.zeros(len(rows), self._dimension, dtype=self._model.dtype, device=self._model.device)
        _backward(self._model, laid, entropy_share, embeds_need_grad=False)
        found: NDArray[np.float32] = self._found.cpu().numpy()
        return found

    def _hook(self, down: Tensor, where: slice) -> Callable[[Any, Any, Tensor], None]:
        def forward(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            reduced = self._scale * (inputs[0][0].detach() @ down.T)  # (tokens, rank)
            if not output.requires_grad:  # the first module: what is before it needs no gradient
                output.requires_grad_()

            def backward(gradient: Tensor) -> None:
                for row, span in enumerate(self._spans):
                    found = self._found[row, where].view(-1, reduced.shape[1])
                    torch.matmul(gradient[0, span].T, reduced[span], out=found)

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward


class _WeightGradients:
    """Gradients of the policy's own weights; a pass has one row."""

    def __init__(self, model: Any, weights: Weights) -> None:
        self._model = model
        self._weights = [weight for _, weight in _chosen(model, weights)]

    def __enter__(self) -> _WeightGradients:
        for weight in self._weights:
            weight.requires_grad_(True)
        return self

    def __exit__(self, *_: object) -> None:
        for weight in self._weights:
            weight.requires_grad_(False)

    def of(self, rows: Sequence[_Row], entropy_share: float) -> NDArray[np.float32]:
        """(1, dimension)."""
        for weight in self._weights:
            weight.grad = None
        needs = not any(weight is self._model.get_input_embeddings().weight for weight in self._weights)
        laid = _lay(rows, self._model.dtype, self._model.device)
        _backward(self._model, laid, entropy_share, embeds_need_grad=needs)
        parts = [
            torch.zeros(weight.numel()) if weight.grad is None else weight.grad.flatten().cpu()
            for weight in self._weights
        ]
        found: NDArray[np.float32] = torch.cat(parts)[None].numpy()
        return found


def _targets(model: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    leaves = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)}
    leaves -= {name.rpartition(".")[2] for name, module in model.named_modules() if module is _head(model)}
    if missing := [name for name in names if name not in leaves]:
        raise PolicyError(
            f"This policy has no module named {' or '.join(missing)} that an adapter fits; it has "
            f"{', '.join(sorted(leaves))}."
        )
    return [(name, module) for name, module in model.named_modules() if name.rpartition(".")[2] in names]


def _head(model: Any) -> Any:
    return model.get_output_embeddings()


def _is_linear(module: Any) -> bool:
    weight = getattr(module, "weight", None)
    return weight is not None and weight.ndim == 2 and not isinstance(module, torch.nn.Embedding)


def _inputs(module: Any) -> int:
    return int(module.in_features if hasattr(module, "in_features") else module.weight.shape[0])


def _outputs(module: Any) -> int:
    return int(module.out_features if hasattr(module, "out_features") else module.weight.shape[1])


def _chosen(model: Any, weights: Weights) -> list[tuple[str, Any]]:
    """Parameters in the model's order, shared ones once."""
    for part in weights.names:
        if not any(part in name for name, _ in model.named_parameters()):
            raise PolicyError(f"This policy has no weights whose name holds {part}.")
    return [
        (name, weight)
        for name, weight in model.named_parameters()
        if not weights.names or any(part in name for part in weights.names)
    ]
