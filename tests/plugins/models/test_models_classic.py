import pytest
import torch
from model_nets import ARGUMENTS, inputs, small, stirred
from torch import nn

from bigopt import registry
from bigopt.surgery import Groups
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models.alexnet import AlexNet
from bigopt_plugins.models.inception import Inception
from bigopt_plugins.models.lenet5 import LeNet5
from bigopt_plugins.models.mlp import MLP
from bigopt_plugins.models.mobilenet import MobileNet
from bigopt_plugins.models.resnet import ResNet
from bigopt_plugins.models.vgg import VGG

CLASSIC = ("mlp", "lenet5", "alexnet", "vgg", "inception", "resnet", "mobilenet")
SIZES = {"mlp": (1, 8, 28), "lenet5": (8, 15, 16, 28), "alexnet": (8, 28, 64)}
DATA = {"in_channels": 1, "image_size": 28, "in_features": 784, "num_classes": 10}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def widths(model):
    """Output channels of every convolution and linear layer, by name."""
    return {
        name: module.out_features if isinstance(module, nn.Linear) else module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def test_parameter_counts_of_the_papers():
    image = {"in_channels": 1, "image_size": 28, "num_classes": 10}
    assert parameters(MLP(in_features=784, num_classes=10)) == 266_610
    assert parameters(LeNet5(**image)) == 431_080
    # ResNet-20 of the CIFAR paper has 0.27M; projections instead of padded shortcuts add 2 × 1×1 with norms.
    assert parameters(ResNet(in_channels=3, num_classes=10, depth=(3, 3, 3), width=16)) == 269_722 + 2_752
    paper = VGG(in_channels=3, image_size=224, num_classes=1000, batch_norm=False, width=1.0)
    assert parameters(paper.features) == 14_714_688


def test_lenet5_is_20_50_800_500_at_28_pixels():
    net = LeNet5(in_channels=1, image_size=28, num_classes=10)
    assert widths(net) == {"conv1": 20, "conv2": 50, "fc1": 500, "fc2": 10}
    assert net.fc1.in_features == 800


def test_layers_carry_the_papers_names():
    names = set(widths(VGG(in_channels=1, image_size=28, num_classes=10)))
    assert {"features.conv1_1", "features.conv3_3", "features.conv4_1", "features.conv5_3"} < names
    assert len(names) == 14  # 13 convolutions and the head
    net = AlexNet(in_channels=1, image_size=28, num_classes=10, width=0.1)
    assert list(widths(net)) == [f"features.conv{i}" for i in range(1, 6)] + [f"classifier.fc{i}" for i in (6, 7, 8)]


def test_vgg_depths_count_weight_layers():
    for depth in (11, 13, 16, 19):
        net = VGG(in_channels=1, image_size=8, num_classes=10, depth=depth, width=0.05, hidden=(8, 8))
        assert len(widths(net)) == depth


def test_depth_and_width_of_resnet():
    net = ResNet(in_channels=1, num_classes=10, depth=(2, 1), width=8)
    assert [len(stage) for stage in net.stages] == [2, 1]
    assert net.head.in_features == 16
    assert net.stages[1](net.stages[0](net.stem(torch.rand(2, 1, 9, 9)))).shape == (2, 16, 5, 5)
    assert ResNet(in_channels=1, num_classes=10, width=4, bottleneck=True).head.in_features == 4 * 4 * 4


def test_channels_of_resnet_are_its_stages():
    net = ResNet(in_channels=1, num_classes=10, depth=(1, 1, 1), channels=(4, 6, 10))
    assert [stage[-1].body[-1][0].out_channels for stage in net.stages] == [4, 6, 10]
    assert net(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_inception_concatenates_its_branches_in_order():
    block = Inception(in_channels=1, image_size=8, num_classes=10, width=16).blocks[0].eval()
    x = torch.rand(2, 16, 4, 4)
    parts = [block.branch1(x), block.branch3(x), block.branch5(x), block.branch_pool(x)]
    assert [part.shape[1] for part in parts] == [4, 8, 2, 2]
    assert torch.equal(block(x), torch.cat(parts, 1))


def test_mobilenet_is_depthwise_inside():
    blocks = MobileNet(in_channels=1, num_classes=10, width=0.5).blocks
    for block in blocks:
        conv = block.body.depthwise.conv
        assert conv.groups == conv.in_channels == conv.out_channels
    assert [block.residual for block in blocks] == [False, False, True, False, True, False, True]


@pytest.mark.parametrize("name", CLASSIC)
def test_takes_every_size_from_the_smallest(name):
    factory = registry.load("models", name)
    for size in (*SIZES.get(name, (8, 28, 32)), factory.min_size):
        context = {"in_channels": 3, "image_size": size, "in_features": 3 * size * size, "num_classes": 7}
        net = registry.build("models", name, {}, context).eval()
        assert net(torch.rand(2, 3, size, size)).shape == (2, 7)


def test_the_data_say_what_they_are():
    schema = Schema("regression", "tabular", (5,), 2)
    net = registry.build("models", "mlp", {"hidden": [4]}, schema.model_arguments())
    assert widths(net) == {"body.fc1": 4, "head": 2}
    assert net.body.fc1.in_features == 5


@pytest.mark.parametrize("name", CLASSIC)
def test_activations_neither_vanish_nor_explode(name):
    torch.manual_seed(0)
    net = registry.build("models", name, {"batch_norm": False} if name == "vgg" else {}, DATA)
    with torch.no_grad():
        spread = net(torch.randn(64, 1, 28, 28)).std().item()
    assert 0.1 < spread < 10


@pytest.mark.parametrize("name", CLASSIC)
def test_learns_random_labels(name):
    changes = {"alexnet": {"width": 0.1, "dropout": 0.0}, "vgg": {"width": 0.25}}.get(name, {})
    net, x = small(name, **changes), inputs(name, 16)
    y = torch.randint(10, (16,))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 1  # chance is 2.3


@pytest.mark.parametrize("name", CLASSIC)
def test_half_of_the_channels_can_be_removed(name):
    net, x = stirred(small(name)).eval(), inputs(name)
    before = widths(net)
    groups = Groups(net, x[:2])
    assert groups.unhandled == {}
    halved = {layer: group.units // 2 for group in groups for layer in group.layers}
    assert len(halved) == len(before) - 1  # all but the last layer
    for group in list(groups):
        groups.remove(group, range(group.units // 2))
    head = next(name for name in before if name not in halved)
    assert widths(net) == {**{name: before[name] - lost for name, lost in halved.items()}, head: 10}
    assert torch.isfinite(net(x)).all() and net(x).shape == (4, 10)


WRONG = [
    ("mlp", {"in_features": 4, "hidden": (3, 0)}, ["hidden: got [3, 0], expected positive whole numbers"]),
    ("mlp", {"in_features": 4, "dropout": 1.0}, ["dropout: got 1.0, expected a number of at least 0 and below 1"]),
    ("lenet5", {"image_size": 7}, ["image_size: got 7, expected a number of at least 8"]),
    ("alexnet", {"image_size": 8, "width": 0}, ["width: got 0, expected a number above 0"]),
    ("vgg", {"image_size": 8, "depth": 12}, ["depth: got 12, expected one of 11, 13, 16, 19"]),
    ("inception", {"image_size": 8, "width": 12}, ["width: got 12, expected a positive multiple of 8"]),
    (
        "resnet",
        {"width": 0, "depth": ()},
        ["width: got 0, expected a number of at least 1", "depth: got [], expected at least one of positive whole"],
    ),
    ("resnet", {"channels": (8, 16)}, ["channels: got 2 stages, expected 3, as depth has"]),
    ("resnet", {"channels": (8, 0, 8)}, ["channels: got [8, 0, 8], expected at least one of positive whole numbers"]),
    ("mobilenet", {"depth": (1,) * 5}, ["depth: got [1, 1, 1, 1, 1], expected at most 4 stages"]),
    ("mobilenet", {"expand": 0, "width": -1.0}, ["expand: got 0", "width: got -1.0, expected a number above 0"]),
]


@pytest.mark.parametrize(("name", "arguments", "expected"), WRONG)
def test_wrong_arguments_are_named_together(name, arguments, expected):
    given = {"num_classes": 10} if name == "mlp" else {"in_channels": 1, "num_classes": 10}
    with pytest.raises(RequestError) as caught:
        registry.load("models", name)(**given, **arguments)
    assert len(caught.value.problems) == len(expected)
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(start)


def test_the_small_nets_cover_every_classic_model():
    assert set(CLASSIC) <= set(ARGUMENTS)
