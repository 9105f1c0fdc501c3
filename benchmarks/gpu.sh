#!/usr/bin/env bash
# Training and sampling at a language model's size on one GPU with 16 GB or more, beside TRL's: about eight minutes,
# no network. The numbers are first compared with the CPU's. Prints one table and one JSON object.
#
#     bash benchmarks/gpu.sh [--minutes 8] [--try]
#
# `--try` runs every part on the CPU with a tiny policy, to test this script. The interpreter is that of `make bench`
# (TRL) if there is one, else that of `make setup`; choose another with PYTHON=...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for python in "${PYTHON:-}" .venv-bench/bin/python .venv/bin/python python3; do
    if [[ -n $python ]] && command -v "$python" >/dev/null; then break; fi
done
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec "$python" -m benchmarks.gpu "$@"
