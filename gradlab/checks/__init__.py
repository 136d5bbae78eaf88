"""What a backward must satisfy: each check is one claim, an equation in its docstring.

Every `_x.py` has one frozen dataclass that is called with a `Subject` and yields
`Mismatch`es. To add one: the file, its line here, and `tests/checks/test_x.py`.
"""

from gradlab.subject import Check

from ._matches_finite_differences import (
    MatchesFiniteDifferences as MatchesFiniteDifferences,
)
from ._matches_reference import MatchesReference as MatchesReference

checks: tuple[Check, ...] = (MatchesReference(), MatchesFiniteDifferences())
"""Every check, in the order in which they run."""
