"""A parser's complaint becomes one sentence with the nearest right name."""

from pathlib import Path

import pytest

from experiments._explain import explain

NESTED = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'NoneType'>, <class 'LightningModule'>]
  Errors:
    - Expected a <class 'NoneType'>
    - Problem with given class_path 'experiments.Classifier':
        {}
  Given value type: <class 'dict'>
  Given value: {{'class_path': 'experiments.Classifier', 'init_args': {{'and': 'so'}}}}
"""


@pytest.mark.parametrize(
    ("complaint", "sentence"),
    [
        (
            NESTED.format("Option 'depht' is not accepted"),
            "model: 'depht' is not an option of experiments.Classifier. Did you mean "
            "'depth'? It takes in_features, out_features, activation, init, optimizer, "
            "depth, width.",
        ),
        (
            NESTED.format(
                "Parser key \"activation\":\n Option 'inplac' is not accepted. Got "
                "value: Namespace(class_path='torch.nn.ReLU', init_args=...)"
            ),
            "model.activation: 'inplac' is not an option of torch.nn.ReLU. Did you "
            "mean 'inplace'? It takes inplace.",
        ),
        (
            NESTED.format("Option 'learning_rate' is not accepted").replace(
                "experiments.Classifier", "torch.optim.ASGD"
            ),
            "model: 'learning_rate' is not an option of torch.optim.ASGD. It takes lr, "
            "lambd, alpha, t0, weight_decay, foreach, maximize, differentiable, "
            "capturable.",
        ),
        (
            NESTED.format(
                "Parser key \"depth\":\n Expected a <class 'int'>. Got value: x"
            ),
            "model.depth: Expected a int. Got value: x",
        ),
        (
            NESTED.format("module 'torch.nn' has no attribute 'RelU'"),
            "model: there is no torch.nn.RelU. Did you mean 'torch.nn.ReLU'?",
        ),
        ("Option 'x' is not accepted", "'x' is not an option."),
        (
            "unrecognized arguments: --trainer.max_epohs=3",
            "trainer.max_epohs is not an option. Did you mean 'trainer.max_epochs'?",
        ),
        (
            "Subcommand 'fit' does not accept option 'dta'",
            "dta is not an option. Did you mean 'data'?",
        ),
        ("unrecognized arguments: --qqq", "qqq is not an option."),
        (
            'Parser key "data":\n - Expected a dot import path string: Digit',
            "data: 'Digit' is no import path, as experiments.Digits is one. Did you "
            "mean 'experiments.Digits'?",
        ),
        (
            NESTED.format("No module named 'experimets'"),
            "model: there is no module experimets. Did you mean 'experiments'?",
        ),
        (
            "Unexpected config: 3",
            "a config must be a mapping with the keys seed_everything, num_threads, "
            "trainer, model, data; got 3.",
        ),
        (
            "the following arguments are required: fit.model",
            "a model and data are required. Give a config: -c configs/<study>.yaml",
        ),
        (
            'Parser key "trainer.max_epochs":\n  Errors:\n    - Expected a <class '
            "'NoneType'>\n    - Expected a <class 'int'>\n  Given value: three",
            "trainer.max_epochs: Expected a int; got three",
        ),
        ("a message of our own.", "a message of our own."),
    ],
)
def test_sentences(complaint: str, sentence: str) -> None:
    assert explain(complaint) == sentence


def test_a_missing_config_is_compared_with_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    complaint = f"Parser key \"config\": File does not exist: '{tmp_path}/study.yml'"
    assert explain(complaint) == f"config: there is no file {tmp_path}/study.yml."
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "study.yaml").touch()
    assert explain(complaint).endswith("Did you mean 'configs/study.yaml'?")
