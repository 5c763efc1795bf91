"""What the tests of distillation share: small nets, a builder that hands out prepared ones, one step."""

import copy

import torch
from torch import nn

from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import recording


def net(width: int = 4, classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    features = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
    )
    return Network(nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, classes)))


class Build:
    """Hands out prepared models in turn, whatever is asked for."""

    def __init__(self, *models):
        self.prepared = list(models)
        self.asked = []

    def model(self, spec, _data):
        self.asked.append(spec)
        return copy.deepcopy(self.prepared[(len(self.asked) - 1) % len(self.prepared)])


def untrained(_run, epochs=None, **_options):
    raise AssertionError("nothing was to be trained")


def prepared(run, part, *teachers):
    run.build = Build(*teachers)
    part.prepare(run, untrained)
    part.modules(run)
    return part


def step(run, part, rows: int = 8):
    """The loss terms of the first rows, as a fit asks for them."""
    x, y = run.data.train.take(torch.arange(rows)), run.data.train.y[:rows]
    batch = part.batch(run, Batch(x, y, torch.arange(rows)).from_(run.data.train))
    with recording(run.model, part.taps(run)) as seen:
        logits = run.model(batch.x)
    return part.loss(run, batch, Output(logits, dict(seen)))


class Brighter(Part):
    """Changes the batch, in a new tensor or in place."""

    def __init__(self, inplace: bool) -> None:
        self.inplace = inplace

    def batch(self, run, batch):
        return batch.with_(x=batch.x.clone().add_(0.1)) if not self.inplace else self._change(batch)

    @staticmethod
    def _change(batch):
        batch.x.add_(0.1)
        return batch
