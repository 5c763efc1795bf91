"""Fine-tuning freezes and takes over what it says."""

import copy

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run

from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.transfer.fine_tuning import FineTuning, blocks, take_over


def net(classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return Network(nn.Sequential(features, nn.Flatten(), nn.Linear(4, classes)))


class Build:
    """Hands out one prepared model, whatever is asked for."""

    def __init__(self, model):
        self.prepared = model
        self.asked = []

    def model(self, spec, _data):
        self.asked.append(spec)
        return copy.deepcopy(self.prepared)

    def dataset(self, spec):
        return data(image=True)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True), max_epochs=2)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_blocks_are_the_layers_of_the_containers_in_order(run):
    assert blocks(run.model) == ["net.0.0", "net.0.1", "net.2"]


def test_frozen_means_bit_identical_batch_norm_statistics_included(run, tmp_path):
    part = FineTuning(trainable_blocks=1)
    part.prepare(run, None)
    before = state(run.model)
    Fitter(tmp_path)(run, 2, parts=[part])
    after = state(run.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"net.2.weight", "net.2.bias"}


def test_lower_blocks_learn_at_their_share_of_the_rate(run):
    part = FineTuning(lr_scale=0.1)
    groups = part.param_groups(run, [{"params": list(run.model.parameters()), "lr": 0.5, "weight_decay": 0.0}])
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(run.model.net[2].weight)] == 0.5
    assert rates[id(run.model.net[0][0].weight)] == pytest.approx(0.05)
    assert len(rates) == len(list(run.model.parameters()))


def test_takes_over_what_fits_and_names_what_is_new():
    target, source = net(classes=3), net(classes=5, seed=1)
    copied, fresh = take_over(target, source)
    assert fresh == ["net.2.weight", "net.2.bias"]
    assert copied == len(target.state_dict()) - 2
    assert torch.equal(target.net[0][0].weight, source.net[0][0].weight)


def test_a_source_of_another_architecture_is_refused():
    with pytest.raises(RequestError, match="transfer.source"):
        take_over(net(), nn.Linear(2, 2))


def test_a_source_is_trained_first_and_taken_over(run):
    run.build = Build(net(seed=7))
    run.settings.extra["model"] = {"name": "resnet"}
    calls = []

    def fit(source, epochs=None, **options):
        calls.append((epochs, options))
        with torch.no_grad():
            source.model.net[0][0].weight.fill_(0.5)

    FineTuning(source={"dataset": "other", "lr": 0.02}, source_epochs=3).prepare(run, fit)
    assert calls == [(3, {"lr": 0.02, "name": "source", "share": True})]
    assert torch.all(run.model.net[0][0].weight == 0.5)


@pytest.mark.parametrize("lr", [0, -1.0, "fast"])
def test_a_rate_of_the_source_out_of_range_is_one_clear_line(run, lr):
    with pytest.raises(RequestError, match=r"transfer\.source\.lr: got .*, expected a rate above 0"):
        FineTuning(source={"dataset": "other", "lr": lr}).prepare(run, None)


def test_more_blocks_than_there_are_is_one_clear_line(run):
    with pytest.raises(RequestError, match="the model has 3 blocks: net.0.0"):
        FineTuning(trainable_blocks=9).prepare(run, None)


@pytest.mark.parametrize(
    ("plugin", "arguments"),
    [
        (FineTuning, {"trainable_blocks": -1}),
        (FineTuning, {"lr_scale": 0.0}),
        (FineTuning, {"source_epochs": 0}),
    ],
)
def test_arguments_out_of_range(plugin, arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        plugin(**arguments)
