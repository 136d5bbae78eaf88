"""The conformance matrix of watching: each setting by each property.

`SETTINGS` are its rows: how a model is trained. `PROPERTIES` are its columns: what must
hold of a monitor that measures everything there. `python -m tests.monitor.settings`
prints it.
"""

from ._properties import PROPERTIES as PROPERTIES, failures as failures
from ._ranks import failures_of_ranks as failures_of_ranks
from ._run import Setting as Setting
from ._settings import SETTINGS as SETTINGS
