"""Every setting of training by every property of watching: `tests.monitor.settings`."""

from pathlib import Path

import pytest

from tests.monitor.settings import SETTINGS, Setting, failures, failures_of_ranks

ALONE = [setting for setting in SETTINGS if setting.ranks == 1]


@pytest.mark.parametrize("setting", ALONE, ids=lambda setting: setting.name)
def test_every_property_holds(setting: Setting, tmp_path: Path) -> None:
    assert failures(setting, tmp_path) == {}


def test_every_property_holds_on_two_ranks(tmp_path: Path) -> None:
    found = failures_of_ranks(tmp_path)
    assert found == {setting.name: {} for setting in SETTINGS if setting.ranks > 1}


def test_names_are_unique() -> None:
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
