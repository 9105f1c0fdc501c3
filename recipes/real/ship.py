"""A split that `make real` labelled, as it travels: without its policy, which `splits build` makes from the package.

python -m recipes.real.ship build/real/split     # writes splits/smollm2-135m-arithmetic
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from recipes.real.policy import SMOLLM2
from unlearnbench.io import files
from unlearnbench.splits import Split
from unlearnbench.splits.cards import write_cards
from unlearnbench.splits.manifest import PACKAGED, POLICY

ROOT = Path(__file__).resolve().parents[2]


def ship(source: Path, shelf: Path) -> Split:
    """Copy the split's files, policy and work folder aside, and say where its policy is. Its hash stays."""
    made = Split(source)
    folder = shelf / made.name
    shutil.rmtree(folder, ignore_errors=True)
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        name = file.relative_to(source)
        if name.parts[0] != POLICY and not name.parts[0].startswith("."):
            files.write_bytes(folder / name, file.read_bytes())
    files.write_json(folder / PACKAGED, SMOLLM2)
    return Split(folder)


if __name__ == "__main__":
    print(ship(Path(sys.argv[1]), ROOT / "splits").path)
    write_cards()
