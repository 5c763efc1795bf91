"""Channels are found behind concatenations and flattenings of any order; where they cannot be, the layer is named."""

import copy

import pytest
import torch
from torch import nn

from bigopt.surgery import Groups
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network


class Net(nn.Module):
    """Two convolutions ``a`` and ``b``, whose features are joined in one way or another, and two linear layers."""

    def __init__(self, features: int, a: nn.Module, b: nn.Module, join) -> None:
        super().__init__()
        self.a, self.b, self.join = a, b, join
        self.norm = (nn.BatchNorm2d if isinstance(b, nn.Conv2d) else nn.BatchNorm1d)(b.out_channels)
        self.hidden, self.head = nn.Linear(features, 7), nn.Linear(7, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(self.join(self, x))))

    def left(self, x):
        return torch.tanh(self.a(x))

    def right(self, x):
        return torch.tanh(self.norm(self.b(x)))


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


def flattened_afterwards(net, x):
    return torch.cat([net.left(x), net.right(x)], 1).flatten(1)


def flattened_before(net, x):
    return torch.cat([net.left(x).flatten(1), net.right(x).flatten(1)], -1)


def nested(net, x):
    left = net.left(x)
    both = torch.cat([net.right(left), left], 1)
    return torch.cat([both, left, both], 1).flatten(1)


def input_as_well(net, x):
    return torch.cat([x, net.right(torch.cat([x, net.left(x)], -3))], 1).flatten(1)


def twice(net, x):
    left = net.left(x)
    return torch.cat([left, net.right(x), left], 1).reshape(len(x), -1)


def pooled_twice(net, x):
    both = torch.cat([net.left(x), net.right(x)], 1)
    return torch.cat([both.mean((2, 3)), both.amax((2, 3))], 1)


def one_dimension(net, x):
    return torch.cat([net.left(x[:, 0]), net.right(x[:, 0])], 1).flatten(1)


FOLLOWED = {
    flattened_afterwards: (36 * 9, conv(1, 4), conv(1, 5)),
    flattened_before: (36 * 4 + 4 * 6, conv(1, 4), nn.Conv2d(1, 6, 5)),
    nested: (36 * 22, conv(1, 4), conv(4, 5)),
    input_as_well: (36 * 6, conv(1, 4), conv(5, 5)),
    twice: (36 * 13, conv(1, 4), conv(1, 5)),
    pooled_twice: (2 * 9, conv(1, 4), conv(1, 5)),
    one_dimension: (6 * 9, nn.Conv1d(6, 4, 1), nn.Conv1d(6, 5, 3, padding=1)),
}


def halves(net, x):
    first, second = net.left(x).chunk(2, 1)
    return torch.cat([first, net.right(second)], 1).flatten(1)


def sliced(net, x):
    return net.right(net.left(x)[:, 2:5]).mean((2, 3))


def shuffled(net, x):
    return net.right(net.left(x).unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)).mean((2, 3))


def into_space(net, x):
    return net.right(nn.functional.pixel_shuffle(net.left(x), 2)).mean((2, 3))


def over_channels(net, x):
    return torch.cat([net.right(x), net.left(x).amax(1, keepdim=True)], 1).flatten(1)


LEFT = {
    halves: (36 * 7, conv(1, 8), conv(4, 3)),
    sliced: (5, conv(1, 8), conv(3, 5)),
    shuffled: (5, conv(1, 8), conv(8, 5)),
    into_space: (5, conv(1, 8), conv(2, 5)),
    over_channels: (36 * 6, conv(1, 4), conv(1, 5)),
}


def network(join, features, a, b) -> tuple[Network, torch.Tensor]:
    torch.manual_seed(3)
    net = Net(features, copy.deepcopy(a), copy.deepcopy(b), join)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0, 0.3)
    nn.init.uniform_(net.norm.bias, 0.5, 1.5)
    net.norm.running_mean.uniform_(-1, 1)
    return Network(net).eval(), torch.rand(4, 1, 6, 6)


def assert_zeroed_equals_removed(dense: Network, x: torch.Tensor, units: dict[str, list[int]]) -> Network:
    zeroed, removed = copy.deepcopy(dense), copy.deepcopy(dense)
    for model, act in ((zeroed, "zero"), (removed, "remove")):
        groups = Groups(model, x)
        for group in groups:
            getattr(groups, act)(group, units.get(group.name, []))
    with torch.no_grad():
        torch.testing.assert_close(removed(x), zeroed(x), atol=1e-5, rtol=1e-5)
        assert (removed(x) - dense(x)).abs().max() > 1e-3
    return removed


@pytest.mark.parametrize("join", FOLLOWED, ids=lambda join: join.__name__)
def test_channels_are_followed(join):
    dense, x = network(join, *FOLLOWED[join])
    groups, width = Groups(dense, x), dense.net.b.out_channels
    assert {group.name: group.channels for group in groups} == {"net.a": 4, "net.b": width, "net.hidden": 7}
    assert not groups.unhandled
    assert_zeroed_equals_removed(dense, x, {"net.b": [0, 3]})
    once = assert_zeroed_equals_removed(dense, x, {"net.a": [0, 2], "net.b": [1, 4], "net.hidden": [0, 6]})
    assert (once.net.a.out_channels, once.net.b.out_channels, once.net.hidden.out_features) == (2, width - 2, 5)
    assert_zeroed_equals_removed(once, x, {"net.a": [1], "net.b": [0, 1]})  # what is left, traced again


@pytest.mark.parametrize("join", LEFT, ids=lambda join: join.__name__)
def test_what_cannot_be_followed_is_named_and_the_rest_goes_on(join):
    dense, x = network(join, *LEFT[join])
    before = copy.deepcopy(dense.state_dict())
    groups = Groups(dense, x)
    assert list(groups.unhandled) == ["net.a"] and "\n" not in groups.unhandled["net.a"]
    rest = {"net.hidden"} if join is halves else {"net.b", "net.hidden"}
    assert {group.name for group in groups} == rest and ("net.b" in groups.unhandled["net.a"]) == (join is halves)
    assert all(torch.equal(before[key], value) for key, value in dense.state_dict().items()) and not dense.changes
    assert_zeroed_equals_removed(dense, x, {"net.b": [0, 2], "net.hidden": [1]})
    with pytest.raises(RequestError, match="net.a cannot be pruned.*strict=false"):
        Groups(dense, x, strict=True)
    assert not Groups(dense, x, ignore=["net.a"]).unhandled


def test_tokens_joined_along_the_sequence_need_no_trial(monkeypatch):
    from bigopt.surgery import _groups

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mlp, self.back = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(5, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            y = self.embed(x[:, 0])
            y = torch.cat([y.mean(1, keepdim=True), y], 1)
            return self.head((y + self.back(torch.tanh(self.mlp(y))))[:, 0])

    monkeypatch.setattr(_groups, "failing", None)  # not called
    torch.manual_seed(0)
    model, x = Network(Tokens()).eval(), torch.rand(2, 1, 6, 6)
    assert {group.name: group.channels for group in Groups(model, x)} == {"net.embed": 8, "net.mlp": 5}
    assert_zeroed_equals_removed(model, x, {"net.embed": [1, 7], "net.mlp": [0]})
