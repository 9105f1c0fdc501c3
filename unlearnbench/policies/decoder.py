"""A policy's tokenizer without its model: the text of a rollout's tokens, and whether it ended. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from unlearnbench.errors import PolicyError
from unlearnbench.records import Tokens


class Decoder:
    """Decodes completions as `Policy.decode` does."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int], size: int) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.size = size
        """Number of ids that a rollout may have; a model's output layer is often larger than its tokenizer."""

    @classmethod
    def load(cls, policy: Path) -> Decoder:
        """The tokenizer of a policy's folder. Raises PolicyError if it has no fast tokenizer."""
        from tokenizers import Tokenizer

        file = policy / "tokenizer.json"
        if not file.is_file():
            raise PolicyError(f"The policy {policy} has no tokenizer.json; save its tokenizer with transformers again.")
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as problem:  # the library raises no type of its own
            raise PolicyError(f"The tokenizer {file} cannot be read ({problem}); save it again.") from problem
        stops: set[int] = set()
        ends = _json(policy / "generation_config.json").get("eos_token_id")
        if ends is None and not (policy / "generation_config.json").is_file():
            ends = _json(policy / "config.json").get("eos_token_id")
        stops |= {ends} if isinstance(ends, int) else set(ends or ())
        words = [_json(policy / name).get("eos_token") for name in ("tokenizer_config.json", "special_tokens_map.json")]
        for word in (word.get("content") if isinstance(word, dict) else word for word in words):
            if isinstance(word, str) and (own := tokenizer.token_to_id(word)) is not None:
                stops.add(own)
                break
        own_size = int(tokenizer.get_vocab_size(with_added_tokens=True))
        told = _json(policy / "config.json").get("vocab_size")
        return cls(tokenizer, frozenset(stops), max(own_size, told if isinstance(told, int) else 0))

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest text of one token: an upper bound per token of a completion."""
        found = self._tokenizer.decode_batch([[token] for token in range(self.size)], skip_special_tokens=False)
        return 1 + max(len(text.encode("utf-8", "replace")) for text in found)  # with a space that a first token loses

    def texts(self, rollouts: Sequence[Tokens]) -> list[str]:
        """The text of each completion, without the token that ended it."""
        rows = [row[:-1] if len(row) and int(row[-1]) in self.stop_ids else row for row in rollouts]
        found: list[str] = self._tokenizer.decode_batch([row.tolist() for row in rows], skip_special_tokens=False)
        return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
