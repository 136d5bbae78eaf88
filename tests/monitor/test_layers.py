from collections import OrderedDict
from itertools import islice

import torch
from torch import nn

from gradlab.monitor._layers import trainable_layers


def names(model: nn.Module) -> dict[str, list[str]]:
    found = trainable_layers(model)
    assert len(found.rows) == len(found.parameters) == sum(found.sizes)
    left = iter(found.rows)
    return {
        layer.name: [row.name for row in islice(left, size)]
        for layer, size in zip(found.layers, found.sizes, strict=True)
    }


class Owner(nn.Module):
    """A module that owns a parameter, as the root of a model does."""

    def __init__(self, name: str = "scale", **children: nn.Module) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.ones(2)))
        for child, module in children.items():
            self.add_module(child, module)


def test_layers_are_the_modules_that_own_parameters_in_their_order() -> None:
    model = nn.Sequential(
        OrderedDict(
            encoder=nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.LayerNorm(2)),
            head=nn.Linear(2, 1, bias=False),
        )
    )
    assert names(model) == {
        "encoder.0": ["encoder.0.weight", "encoder.0.bias"],
        "encoder.2": ["encoder.2.weight", "encoder.2.bias"],
        "head": ["head.weight"],
    }


def test_what_the_model_itself_owns_is_the_root() -> None:
    assert names(Owner(fc=nn.Linear(1, 1, bias=False))) == {
        "root": ["scale"],
        "fc": ["fc.weight"],
    }


def test_frozen_parameters_and_layers_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    assert names(model) == {"1": ["1.weight"]}
    model[0].requires_grad_(True)
    assert list(names(model)) == ["0", "1"]


def test_a_tied_parameter_belongs_to_its_first_owner() -> None:
    model = nn.Sequential(nn.Embedding(4, 2), nn.Linear(2, 4))
    model[1].weight = model[0].weight
    assert names(model) == {"0": ["0.weight"], "1": ["1.bias"]}


def test_a_module_used_twice_is_one_layer() -> None:
    layer = nn.Linear(2, 2)
    assert list(names(nn.Sequential(layer, layer))) == ["0"]


def test_a_child_may_be_called_total_or_root() -> None:
    model = Owner(
        "weight",
        total=nn.Linear(1, 1, bias=False),
        root=nn.Linear(1, 1, bias=False),
    )
    assert names(model) == {
        "root": ["weight"],
        "total (layer)": ["total (layer).weight"],
        "root (layer)": ["root (layer).weight"],
    }


def test_a_parameter_may_be_called_total() -> None:
    assert names(Owner("total")) == {"root": ["total (parameter)"]}


def test_a_slash_in_a_name_does_not_become_a_segment_of_the_tag() -> None:
    model = nn.ModuleDict({"glue/sst2": nn.Linear(1, 1)})
    tags = [row.tag for row in trainable_layers(model).rows]
    assert tags == ["glue:sst2/weight", "glue:sst2/bias"]


def test_a_lazy_layer_is_the_same_layer_before_and_after() -> None:
    model = nn.Sequential(nn.LazyLinear(3))
    before = names(model)
    model(torch.ones(1, 2))
    assert names(model) == before == {"0": ["0.weight", "0.bias"]}
