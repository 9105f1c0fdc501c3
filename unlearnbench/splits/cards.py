"""The dataset cards of a checkout: the text is kept, the YAML header is updated from the splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from unlearnbench.io import files
from unlearnbench.splits.manifest import waits
from unlearnbench.splits.split import PACKAGE, SHELVES, Split

if TYPE_CHECKING:
    pass


def front_matter(shelf: Path, prefix: str) -> str:
    """The YAML head of a dataset card for the splits under `shelf`, whose files lie at `prefix` seen from the card.

    Splits without their texts are left out, and so are parts without items: `datasets` cannot load an empty
    part, nor then any other of that split.
    """
    configs = []
    for file in sorted(shelf.glob("*/split.yaml")):
        if waits(file.parent):
            continue
        split = Split(file.parent)
        filled = {"train", *(item.group for item in split.items)}
        data_files = [
            {"split": part, "path": f"{prefix}{split.path.name}/data/{part}.parquet"}
            for part in split
            if part in filled
        ]
        default: Mapping[str, bool] = {"default": True} if split.path.name == "micro" else {}
        # `datasets` caches by this header, not by the contents of the files: new labels must change it.
        labels = f"labels {split.hash[:16]}"
        configs.append({"config_name": split.path.name, **default, "description": labels, "data_files": data_files})
    head = {
        "pretty_name": "UnlearnBench",
        "license": "apache-2.0",
        "language": ["en"],
        "tags": ["reinforcement-learning", "rlvr", "grpo", "math", "benchmark"],
        "configs": configs,
    }
    return "---\n" + yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=110) + "---\n"


def cards(root: Path) -> dict[Path, str]:
    """The two dataset cards of a checkout as they should read: the text stays, the YAML head follows the splits.

    `unlearnbench/README.md` makes `load_dataset("unlearnbench")` work at the root; `splits/README.md` is the Hub's.
    """
    fresh = {}
    for card, prefix in ((root / "unlearnbench" / "README.md", "../splits/"), (root / "splits" / "README.md", "")):
        text = card.read_text(encoding="utf-8")
        body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
        fresh[card] = front_matter(root / "splits", prefix) + body
    return fresh


def card_text() -> str:
    """The dataset card without its head; empty if the card is not shipped with the package."""
    cards = (shelf / "README.md" for shelf in SHELVES)
    text = next((card.read_text(encoding="utf-8") for card in cards if card.is_file()), "")
    return text.split("---\n", 2)[2] if text.startswith("---\n") else text


def write_cards(root: Path = PACKAGE.parent) -> None:
    """Bring the heads of both dataset cards up to date, after splits were made or changed."""
    for card, text in cards(root).items():
        files.write_text(card, text)
