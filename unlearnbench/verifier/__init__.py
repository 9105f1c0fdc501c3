"""Verdicts: is the answer that a completion states the gold answer?

In: gold answers and completions, both untrusted text. Out: `records.Verdict`s. Text is parsed and compared in guarded
worker processes; `math/` holds the mathematics.
"""

from unlearnbench.verifier.golds import gold_texts as gold_texts
from unlearnbench.verifier.golds import ungradable as ungradable
from unlearnbench.verifier.golds import verify_golds as verify_golds
from unlearnbench.verifier.verifier import UNGRADABLE as UNGRADABLE
from unlearnbench.verifier.verifier import Verifier as Verifier
from unlearnbench.verifier.verifier import verify as verify
from unlearnbench.verifier.verifier import verify_many as verify_many
