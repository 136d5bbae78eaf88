"""Each mutant is claimed by its own diagnosis and no other: an identity matrix."""

from __future__ import annotations

import re

import pytest

from gradlab.diagnoses import diagnoses

from .mutants import Mutant, mutants


@pytest.mark.parametrize("mutant", mutants, ids=lambda m: m.name)
def test_only_its_own_diagnosis_claims_a_mutant(mutant: Mutant) -> None:
    said = {type(d).__name__: d(mutant.mismatch) for d in diagnoses}
    claimed = {name: sentence for name, sentence in said.items() if sentence}
    assert list(claimed) == [mutant.diagnosis], claimed
    sentence = claimed[mutant.diagnosis]
    assert sentence is not None
    assert re.search(mutant.says, sentence), sentence


def test_every_diagnosis_has_a_mutant() -> None:
    assert {m.diagnosis for m in mutants} == {type(d).__name__ for d in diagnoses}
