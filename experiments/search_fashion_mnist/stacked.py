"""Many small perceptrons trained at once: same data order, width, batch size and augmentation, own rates and decays."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def train_together(
    x: Tensor, y: Tensor, held: Tensor, held_y: Tensor, configs: list[dict[str, Any]], epochs: int, augment: Any
) -> list[dict[str, list[float]]]:
    """One hidden layer each, AdamW (Loshchilov and Hutter 2019) and a cosine; the models do not touch each other.

    Args:
        x: training images ``(N, 1, H, W)``.
        y: their labels ``(N,)``.
        held: validation images ``(V, 1, H, W)``.
        held_y: their labels ``(V,)``.
        configs: M configurations that differ in ``lr`` and ``weight_decay`` only.
        epochs: passes over the training images.
        augment: called with images and a generator, or None.

    Returns:
        for each configuration, validation accuracy, loss, and its share of the processor seconds, of every epoch.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    count, width, batch = len(configs), int(configs[0]["width"]), int(configs[0]["batch_size"])
    rates = torch.tensor([config["lr"] for config in configs]).reshape(-1, 1, 1)
    decays = torch.tensor([config["weight_decay"] for config in configs]).reshape(-1, 1, 1)
    features, classes = x[0].numel(), int(y.max()) + 1
    shapes = ((features, width), (1, width), (width, classes), (1, classes))
    parameters = []
    for rows, columns in shapes:
        bound = 1 / math.sqrt(features if columns == width else width)
        one = torch.empty(1, rows, columns).uniform_(-bound, bound)
        parameters.append(one.repeat(count, 1, 1).requires_grad_())
    first, second = ([torch.zeros_like(each) for each in parameters] for _ in range(2))

    def logits(images: Tensor) -> Tensor:
        flat = images.flatten(1).expand(count, -1, -1)
        hidden = torch.baddbmm(parameters[1], flat, parameters[0]).relu()
        return torch.baddbmm(parameters[3], hidden, parameters[2])

    found: list[dict[str, list[float]]] = [{"accuracy": [], "loss": [], "seconds": []} for _ in configs]
    steps, done = len(x) // batch, 0
    for _ in range(epochs):
        start = time.process_time()
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            images = x[rows] if augment is None else augment(x[rows], generator)
            answers = logits(images).flatten(0, 1)
            loss = functional.cross_entropy(answers, y[rows].repeat(count)) * count
            gradients = torch.autograd.grad(loss, parameters)
            rate = rates * (1 + math.cos(math.pi * done / (steps * epochs))) / 2
            done += 1
            with torch.no_grad():
                for each, gradient, mean, square in zip(parameters, gradients, first, second, strict=True):
                    each.mul_(1 - rate * decays)
                    mean.lerp_(gradient, 0.1)
                    square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                    root = (square / (1 - 0.999**done)).sqrt_().add_(1e-8)
                    each.sub_(rate * mean / (1 - 0.9**done) / root)
        with torch.no_grad():
            answers = logits(held)
        seconds = (time.process_time() - start) / count
        accuracy = (answers.argmax(2) == held_y).float().mean(1)
        for place, kept in enumerate(found):
            kept["accuracy"].append(round(accuracy[place].item(), 5))
            kept["loss"].append(round(functional.cross_entropy(answers[place], held_y).item(), 5))
            kept["seconds"].append(round(seconds, 6))
    return found
