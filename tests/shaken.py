"""Batch norms that are not those of a fresh net."""

from torch import nn


def shake_norms(net: nn.Module, mean: float = 1.0) -> None:
    """Draws scales, shifts and running statistics anew; running means from -mean to mean."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, 0.5, 1.5)
            module.running_mean.uniform_(-mean, mean)
            module.running_var.uniform_(0.5, 1.5)
