"""On any small net, what channel pruning removes is what zeroing would have silenced."""

import copy
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from shaken import shake_norms
from torch import nn
from train.train_fakes import data, make_run

from bigopt.surgery import Groups
from bigopt.vocabulary.network import Network, Normalize
from bigopt_plugins.compression.channel_pruning import ChannelPruning

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}
WIDTHS = st.integers(3, 7)


def conv(inputs, outputs, kernel, norm, act, groups=1):
    layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=not norm)]
    layers += [nn.BatchNorm2d(outputs)] if norm else []
    return nn.Sequential(*layers, ACTIVATIONS[act]())


class Residual(nn.Module):
    def __init__(self, channels, inner, **how):
        super().__init__()
        self.inside = conv(channels, inner, **how)
        self.outside = nn.Conv2d(inner, channels, 1)

    def forward(self, x):
        return torch.relu(x + self.outside(self.inside(x)))


class Concat(nn.Module):
    def __init__(self, channels, left, right, **how):
        super().__init__()
        self.left, self.right = conv(channels, left, **how), nn.Conv2d(channels, right, 1)

    def forward(self, x):
        return torch.cat([self.left(x), x, torch.relu(self.right(x))], 1)


class Net(nn.Module):
    """A stem, blocks, and a head on the mean or on all places."""

    def __init__(self, width, blocks, flat):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, width, 3, padding=1), nn.Sequential()
        for kind, first, second, how in blocks:
            if kind == "plain":
                self.blocks.append(conv(width, first, **how))
                width = first
            elif kind == "residual":
                self.blocks.append(Residual(width, first, **how))
            elif kind == "concat":
                self.blocks.append(Concat(width, first, second, **how))
                width += first + second
            else:
                depth = conv(width, width, **{**how, "kernel": 3}, groups=width)
                self.blocks.append(nn.Sequential(depth, conv(width, first, **{**how, "kernel": 1})))
                width = first
        self.hidden = nn.Linear(width * (36 if flat else 1), 6)
        self.head, self.flat = nn.Linear(6, 3), flat

    def forward(self, x):
        x = self.blocks(torch.relu(self.stem(x)))
        return self.head(torch.relu(self.hidden(x.flatten(1) if self.flat else x.mean((2, 3)))))


HOW = st.fixed_dictionaries(
    {"kernel": st.sampled_from([1, 3]), "norm": st.booleans(), "act": st.sampled_from(sorted(ACTIVATIONS))}
)
BLOCK = st.tuples(st.sampled_from(["plain", "residual", "concat", "depthwise"]), WIDTHS, WIDTHS, HOW)


PLAIN = {"kernel": 1, "norm": False, "act": "relu"}


def network(width, blocks, flat):
    """With shifts and running statistics that are not those of a fresh net."""
    torch.manual_seed(width)
    net = Net(width, blocks, flat)
    shake_norms(net, 0.5)
    return Network(net, Normalize(torch.tensor([0.3]), torch.tensor([0.4]), spatial=True)).eval()


@settings(
    max_examples=12,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # shrinking would trace thousands of nets
)
@example([("plain", 4, 3, PLAIN), ("concat", 3, 3, PLAIN)], 3, True, 0.5, "l1", "local")
@given(
    blocks=st.lists(BLOCK, min_size=1, max_size=3),
    width=WIDTHS,
    flat=st.booleans(),
    ratio=st.sampled_from([0.3, 0.5, 0.8]),
    criterion=st.sampled_from(["l1", "random", "taylor"]),
    ranking=st.sampled_from(["local", "global"]),
)
def test_zeroed_equals_removed(blocks, width, flat, ratio, criterion, ranking):
    dense = network(width, blocks, flat)
    run = make_run(Path("unused"), copy.deepcopy(dense), data(image=True))
    ChannelPruning(ratio=ratio, criterion=criterion, ranking=ranking, samples=16).apply(run, ratio)
    removed, zeroed = run.model, copy.deepcopy(dense)
    groups = Groups(zeroed, run.data.train.take(torch.arange(2)))
    by_name = {group.name: group for group in groups}
    assert not groups.unhandled
    for change in removed.changes:
        groups.zero(by_name[change["layer"]], change["channels"])
    x = run.data.val.take(torch.arange(8))
    with torch.no_grad():
        after, silenced, before = removed(x), zeroed(x), dense(x)
    scale = max(1.0, float(before.abs().max()))
    torch.testing.assert_close(after / scale, silenced / scale, atol=1e-5, rtol=0)
    if ranking == "local":  # the widths are those of the ratio, counted by hand
        assert {name: group.channels for name, group in by_name.items() if int(ratio * group.units + 1e-9)} == {
            change["layer"]: by_name[change["layer"]].channels for change in removed.changes
        }
        for change in removed.changes:
            assert len(change["channels"]) == int(ratio * by_name[change["layer"]].channels + 1e-9)
    assert sum(p.numel() for p in removed.parameters()) < sum(p.numel() for p in dense.parameters())
