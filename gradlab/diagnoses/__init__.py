"""Why a gradient is wrong: each diagnosis recognises one mistake and says its number.

Every `_x.py` has one frozen dataclass that is called with a `Mismatch` and returns one
sentence, or None. To add one: the file, its line here, and its mutant in
`tests/diagnoses/test_x.py`, which it, and no other diagnosis, must claim.
"""

from collections.abc import Callable

from gradlab.subject import Mismatch

Diagnosis = Callable[[Mismatch], str | None]

diagnoses: tuple[Diagnosis, ...] = ()
"""Every diagnosis, the most specific first."""
