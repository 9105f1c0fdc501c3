"""Verifying a bundle: checks of what it claims, its weights measured again, its source trained again.

In: a `Bundle` (bundles/) and its split. Out: a `Verification`, whose result is the one measured here. The story is in
`verify`; each other module is one check of it.
"""

from unlearnbench.leaderboard.verification.verify import (
    Checked,
    Reason,
    Verification,
    examine,
    listed,
    summed_up,
    verify_bundle,
)

__all__ = ["Checked", "Reason", "Verification", "examine", "listed", "summed_up", "verify_bundle"]
