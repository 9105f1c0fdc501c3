"""How a model reads the rows of a micro-batch: right-padded, or end to end without padding, shared contexts once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unlearnbench.errors import PolicyError
from unlearnbench.policies.packed_attention import attending, in_pieces
from unlearnbench.policies.packing import Packed, Row, packed


@dataclass(frozen=True)
class Layout:
    """Tokens of one pass, and which of them predict. A prediction's place counts over (rows, columns), flattened."""

    ids: Tensor
    """(rows, tokens); (1, tokens) if they lie end to end."""
    kept: int | Tensor
    """The tokens at the end of each row that predict, and the last one; or the tokens that predict, by index."""
    places: Tensor
    """(predictions,)"""
    packed: Packed | None = None

    def logits(self, model: Any) -> Tensor:
        """What the model's output layer returns for the kept tokens: (rows, kept, vocabulary)."""
        found: Tensor
        if self.packed is None:
            found = model(input_ids=self.ids, use_cache=False, logits_to_keep=self.kept).logits
            return found
        with attending(model), in_pieces(self.packed.pieces):
            found = model(
                input_ids=self.ids, position_ids=self.packed.positions, use_cache=False, logits_to_keep=self.kept
            ).logits
        return found

    def predicting(self, outputs: Tensor) -> Tensor:
        """Of outputs (rows, kept, size) those that predict: (predictions, size)."""
        return outputs[0] if self.packed is not None else outputs[:, :-1].flatten(0, 1)


def padded(ids: Tensor, kept: int) -> Layout:
    """Rows as they are. The last `kept` tokens of each are kept, all but the last of which predict."""
    return Layout(ids, kept, torch.arange(len(ids) * (kept - 1), device=ids.device))


def end_to_end(ids: Tensor, lengths: Tensor, mask: Tensor, first: int) -> Layout:
    """Rows without padding: the tokens that rows of one context share are computed once, and equal rows, too.

    `ids` (rows, tokens + 1) have `lengths` (rows,); a row's context ends where `mask` (rows, tokens) is first positive.
    Places count over the columns from `first` on.
    """
    columns = ids.shape[1] - 1 - first
    starts = (mask > 0).float().argmax(1).clamp(min=first).tolist()  # a row without weight has no such token
    shared: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for row, (tokens, length, start) in enumerate(zip(ids.tolist(), lengths.tolist(), starts, strict=True)):
        if length > start + 1:
            responses = shared.setdefault(tuple(tokens[: start + 1]), {})
            responses.setdefault(tuple(tokens[start + 1 : length]), []).append(row)
    laid = packed(
        [Row(0, 0, context, tuple(found), (1.0,) * len(found)) for context, found in shared.items()],
        torch.float32,
        ids.device,
    )
    copies = [(response, rows) for found in shared.values() for response, rows in found.items()]
    sources, places = [], []
    for (response, rows), span in zip(copies, torch.split(laid.sources, [len(one) for one, _ in copies]), strict=True):
        for row in rows:
            begin = row * columns + starts[row] - first
            sources.append(span)
            places.append(torch.arange(begin, begin + len(response), device=ids.device))
    return Layout(laid.ids, torch.cat(sources), torch.cat(places), laid)


@torch.no_grad()
def reads_end_to_end(model: Any) -> bool:
    """Whether a model computes the same for rows that lie end to end as for each row by itself, tried on short rows.

    True of models whose tokens meet in plain attention alone, false with convolutions, states, sinks or capped scores.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ())
    if getattr(config, "attn_logit_softcapping", None) or not kinds <= {"full_attention", "sliding_attention"}:
        return False
    lengths = torch.tensor([5, 8, 8])
    ids = torch.arange(24, device=model.device).view(3, 8) % int(config.vocab_size)
    ids[1, :3] = ids[0, :3]  # the first two share a context
    mask = (torch.arange(7) >= 2).expand(3, 7).float()
    try:
        laid = end_to_end(ids, lengths, mask, 0)
        found = laid.predicting(laid.logits(model)).float()
    except (PolicyError, TypeError, ValueError):  # another attention, or no positions to give
        return False
    alone = padded(ids, 8)
    expected = alone.predicting(alone.logits(model)).float()[laid.places]
    slack = (1e-4 if model.dtype.itemsize >= 4 else 0.05) * float(expected.abs().max())
    return torch.allclose(found, expected, rtol=0.0, atol=slack)
