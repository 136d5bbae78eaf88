import json

import pytest

from gradlab.pathologies import Finding, pathologies

CARD = Finding(
    "vanishing",
    step=12,
    symptom="the gradient shrinks ×0.24 a layer towards the input, " * 3,
    layers=tuple(f"encoder.layers.{i}.self_attention.weight" for i in range(9)),
    evidence={f"figure_{i}": i / 3 for i in range(12)},
    causes=("saturated sigmoids " * 9, "initial weights too small"),
    experiment="ReLU in place of the sigmoid, all else the same, " * 3,
    confidence=0.99,
)


def test_a_card_fits_the_terminal() -> None:
    text = str(CARD)
    assert max(map(len, text.splitlines())) <= 88
    assert "and 5 more" in text
    assert "[vanishing, 99% sure]" in " ".join(text.split())


def test_a_card_is_plain_data() -> None:
    data = json.loads(json.dumps(CARD.to_dict()))
    assert data["code"] == "vanishing"
    assert data["layers"] == list(CARD.layers)
    assert data["evidence"] == dict(CARD.evidence)


@pytest.mark.parametrize("wrong", [{"confidence": 1.1}, {"step": -1}])
def test_what_a_card_cannot_say(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"is (counted )?from 0"):
        Finding(**({"code": "x", "step": 0, "symptom": "y"} | wrong))


def test_each_pathology_has_a_code_of_its_own() -> None:
    codes = [pathology.code for pathology in pathologies]
    assert len(set(codes)) == len(codes)
    assert all(pathology.needs for pathology in pathologies)
