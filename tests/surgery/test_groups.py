"""Removing channels gives what zeroing them gives, on every topology."""

import copy

import pytest
import torch
from shaken import shake_norms
from torch import nn

from bigopt.surgery import Groups, last_layer
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network, Normalize


class Sequential(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * 16, 12),
            nn.ReLU(),
            nn.Linear(12, 3),
        )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 3, padding=1)
        self.inner_norm = nn.BatchNorm2d(5)
        self.outer = nn.Conv2d(5, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner_norm(self.inner(x)))))
        return self.head(x.mean((2, 3)))


class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 1)
        self.right = nn.Conv2d(1, 5, 3, padding=1)
        self.right_norm = nn.BatchNorm2d(5)
        self.join = nn.Conv2d(9, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        joined = torch.cat([torch.relu(self.left(x)), torch.relu(self.right_norm(self.right(x)))], 1)
        return self.head(torch.relu(self.join(joined)).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(1, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(6)
        self.project = nn.Conv2d(6, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.depthwise(torch.relu(self.expand(x)))))
        return self.head(torch.relu(self.project(x)).mean((2, 3)))


def network(net: nn.Module) -> Network:
    torch.manual_seed(0)
    shake_norms(net)
    return Network(net, Normalize(torch.tensor([0.3]), torch.tensor([0.4]), spatial=True)).eval()


@pytest.mark.parametrize("net", [Sequential, Residual, Concat, Depthwise])
def test_zeroed_equals_removed(net):
    dense = network(net())
    x = torch.rand(4, 1, 8, 8)
    zeroed, removed = copy.deepcopy(dense), copy.deepcopy(dense)
    for model, act in ((zeroed, "zero"), (removed, "remove")):
        groups = Groups(model, x)
        assert len(groups) > 0
        for group in groups:
            getattr(groups, act)(group, [0, 2])
    with torch.no_grad():
        torch.testing.assert_close(removed(x), zeroed(x), atol=1e-5, rtol=0)
        assert (removed(x) - dense(x)).abs().max() > 1e-3
    assert sum(p.numel() for p in removed.parameters()) < sum(p.numel() for p in dense.parameters())


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_whole_heads_go_and_the_attention_still_agrees(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    common = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, num_labels=3)
    if kind == "vit":
        config = transformers.ViTConfig(image_size=8, patch_size=4, num_channels=1, **common)
        config._attn_implementation = "eager"
        model = Network(transformers.ViTForImageClassification(config)).eval()
        x = torch.rand(3, 1, 8, 8)
    else:
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=12, **common)
        config._attn_implementation = "eager"
        model = Network(transformers.BertForSequenceClassification(config), pad_id=0).eval()
        x = torch.randint(1, 20, (3, 10))
    zeroed = copy.deepcopy(model)
    pruned = 0
    for target, act in ((zeroed, "zero"), (model, "remove")):
        groups = Groups(target, x)
        for group in groups:
            if group.unit > 1:
                assert (group.unit, group.units) == (4, 4)
                getattr(groups, act)(group, [1])
                pruned += 1
    assert pruned == 4
    with torch.no_grad():
        torch.testing.assert_close(model(x), zeroed(x), atol=1e-5, rtol=0)


def test_the_layer_of_the_logits_and_ignored_layers_keep_their_channels():
    model = network(Residual())
    x = torch.rand(2, 1, 8, 8)
    assert last_layer(model, x) == "net.head"
    assert {group.name for group in Groups(model, x)} == {"net.stem", "net.inner"}
    # outer shares its channels with stem through the residual, so ignoring it protects both.
    assert {group.name for group in Groups(model, x, ignore=["*.outer"])} == {"net.inner"}


def test_a_grouped_convolution_is_named_and_left_or_refused():
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 8, 1, groups=2), nn.Flatten(), nn.Linear(8 * 64, 3))
    model, x = network(net), torch.rand(2, 1, 8, 8)
    groups = Groups(model, x)
    assert list(groups.unhandled) == ["net.0", "net.1"] or list(groups.unhandled) == ["net.1"]
    assert "groups" in groups.unhandled["net.1"]
    with pytest.raises(RequestError, match="strict=false"):
        Groups(model, x, strict=True)


def test_changes_are_recorded_as_plain_json():
    model, x = network(Sequential()), torch.rand(2, 1, 8, 8)
    groups = Groups(model, x)
    groups.remove(next(iter(groups)), [1, 4])
    assert model.changes == [{"op": "prune", "layer": "net.0", "channels": [1, 4]}]


@pytest.mark.parametrize("units", [[9], [-1], [0, 1, 2, 3, 4, 5]])
def test_units_that_do_not_exist_or_all_of_them_are_refused(units):
    model, x = network(Sequential()), torch.rand(2, 1, 8, 8)
    groups = Groups(model, x)
    with pytest.raises(ValueError, match="net.0"):
        groups.remove(next(iter(groups)), units)


def test_looking_for_groups_moves_no_running_statistics():
    model = network(Residual()).train()
    before = model.net.norm.running_mean.clone()
    Groups(model, torch.rand(2, 1, 8, 8))
    assert torch.equal(model.net.norm.running_mean, before)
    assert all(module.training for module in model.modules())
