"""Small networks and a builder that hands out what a test prepared."""

import copy

import torch
from torch import nn
from train.train_fakes import data

from bigopt.vocabulary.network import Network


def net(classes: int = 3, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
    second = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5))
    body = nn.Sequential(first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(nn.Sequential(body, nn.Linear(6, classes)))


class Build:
    """Hands out one prepared model and dataset, whatever is asked for."""

    def __init__(self, model, dataset=None):
        self.prepared = model
        self.data = dataset if dataset is not None else data(image=True)
        self.asked = []

    def model(self, spec, _data, new_head=False):
        self.asked.append((spec, new_head))
        return copy.deepcopy(self.prepared)

    def dataset(self, _spec):
        return self.data


def state(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def changed(before, after):
    """Names of the tensors that are not the same to the last bit."""
    return {name for name in before if not torch.equal(before[name], after[name])}
