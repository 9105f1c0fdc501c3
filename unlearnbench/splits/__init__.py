"""A split: base policy, items with their labels, protocol and controls.

In: a folder with split.yaml (a shipped name, or a path). Out: `Split`, whose tables are read when first asked for and
checked against their hashes; the sealed copy that a method's process gets.
"""

from unlearnbench.splits.cards import write_cards as write_cards
from unlearnbench.splits.sealed import seal as seal
from unlearnbench.splits.split import Control as Control
from unlearnbench.splits.split import Split as Split
from unlearnbench.splits.split import find_split as find_split
from unlearnbench.splits.split import load_split as load_split
from unlearnbench.splits.split import shipped_splits as shipped_splits
from unlearnbench.splits.write import write_split as write_split
