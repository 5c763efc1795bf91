"""What is tried: every compression plugin at three strengths, stacks of them, and the controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Size:
    """How long the nets of one width train.

    Attributes:
        images: training images.
        judged: validation images.
        epochs: of the baseline.
        recover: epochs after a step.
        learn: epochs of the steps that learn what to remove.
        stack: epochs after the pruning step, and of the quantizing step, of a stack.
        seeds: nets that are trained.
    """

    images: int
    judged: int
    epochs: int
    recover: int
    learn: int
    stack: tuple[int, int]
    seeds: tuple[int, ...]


SIZES = {
    16: Size(images=4000, judged=3000, epochs=10, recover=2, learn=4, stack=(6, 3), seeds=(0, 1, 2)),
    64: Size(images=2000, judged=2000, epochs=10, recover=2, learn=4, stack=(5, 3), seeds=(0,)),
}


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        family: the plugin, ``stack`` or ``control``.
        label: what differs within the family.
        steps: the compression list.
        settings: overrides of the steps.
        model: overrides of the model and the training.
        control: whether the run also gives the baseline the same extra epochs.
        draws: the same with so many other random masks.
    """

    family: str
    label: str
    steps: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    control: bool = False

    @property
    def name(self) -> str:
        """Family and label."""
        return f"{self.family}: {self.label}"

    def overrides(self) -> list[str]:
        """Words for the command line."""
        words = [f"compression=[{','.join(self.steps)}]", *(f"{key}={value}" for key, value in self.model.items())]
        words += [f"compression.{key}={value}" for key, value in self.settings.items()]
        return words + (["control=true"] if self.control else [])


def cells(width: int) -> list[Cell]:
    """All cells of a width, the cheap and important first."""
    size = SIZES[width]
    units, numbers, learned = _units(size), _numbers(size), _learned(size, width)
    return [*units, *_stacks(size, width), *_controls(size, width), *numbers, *learned]


def _units(size: Size) -> list[Cell]:
    recover = size.recover
    found = []
    for plugin in ("channel_pruning", "random_pruning"):
        for ratio in (0.3, 0.5, 0.7):
            found.append(
                Cell(
                    plugin,
                    f"ratio {ratio}",
                    (plugin,),
                    {f"{plugin}.ratio": ratio, f"{plugin}.recover.epochs": recover},
                    control=(plugin, ratio) == ("channel_pruning", 0.3),
                )
            )
    for draw in range(1, 5):
        settings = {
            "random_pruning.ratio": 0.5,
            "random_pruning.recover.epochs": recover,
            "random_pruning.draw": draw,
        }
        found.append(Cell("random_pruning", f"ratio 0.5, draw {draw}", ("random_pruning",), settings))
    for ratio in (0.3, 0.5):
        settings = {"channel_pruning.ratio": ratio, "channel_pruning.recover.epochs": 0}
        found.append(Cell("reestimate_norm", f"off, after ratio {ratio}", ("channel_pruning",), settings))
        steps = ("channel_pruning", "reestimate_norm")
        found.append(Cell("reestimate_norm", f"on, after ratio {ratio}", steps, settings))
    return found


def _numbers(size: Size) -> list[Cell]:
    recover = size.recover
    found = []
    for bits in (8, 6, 4):
        found.append(Cell("quantization", f"static W{bits}A8", ("quantization",), {"quantization.bits": bits}))
    for bits, activation in ((8, 8), (4, 8), (2, 8), (4, 4)):
        settings = {
            "quantization.mode": "qat",
            "quantization.bits": bits,
            "quantization.activation_bits": activation,
            "quantization.recover.epochs": recover,
        }
        found.append(Cell("quantization", f"trained W{bits}A{activation}", ("quantization",), settings))
    for ratio in (0.3, 0.5, 0.7):
        settings = {"low_rank.ratio": ratio, "low_rank.recover.epochs": recover}
        found.append(Cell("low_rank", f"ratio {ratio}", ("low_rank",), settings))
    for ratio in (0.5, 0.8, 0.95):
        settings = {"magnitude_pruning.ratio": ratio, "magnitude_pruning.recover.epochs": recover}
        found.append(Cell("magnitude_pruning", f"ratio {ratio}", ("magnitude_pruning",), settings))
    for bits in (5, 4, 3):
        settings = {"weight_sharing.bits": bits, "weight_sharing.recover.epochs": recover}
        found.append(Cell("weight_sharing", f"{bits} bits", ("weight_sharing",), settings))
    for label, more in (
        ("quadratic", {"order": 2}),
        ("cubic", {"order": 3}),
        ("staircase of 16", {"form": "staircase", "levels": 16}),
    ):
        settings = {f"activation.{key}": value for key, value in more.items()}
        found.append(Cell("activation", label, ("activation",), settings | {"activation.recover.epochs": recover}))
    return found


def _learned(size: Size, width: int) -> list[Cell]:
    found = []
    for plugin, values in (("structured_sparsity", (0.5, 1, 2)), ("gaussian_constraint", (1, 3, 10))):
        for penalty in values:
            settings = {
                f"{plugin}.penalty": penalty,
                f"{plugin}.epochs": size.learn - size.recover,
                f"{plugin}.recover.epochs": size.recover,
            }
            found.append(Cell(plugin, f"penalty {penalty}", (plugin,), settings))
    for penalty in (1, 3, 10):
        settings = {"l0.penalty": penalty, "l0.recover.epochs": size.learn}
        found.append(Cell("l0", f"penalty {penalty}", ("l0",), settings))
    middle = {16: 0.05, 64: 0.0025}[width]  # samples per weight
    for times in (0.25, 1, 4):
        settings = {
            "variational_dropout.kl_weight": middle * times,
            "variational_dropout.recover.epochs": size.learn,
        }
        found.append(Cell("variational_dropout", f"KL × {times}", ("variational_dropout",), settings))
    return found


def _quantized(size: Size, bits: int) -> dict[str, Any]:
    return {
        "quantization.mode": "qat",
        "quantization.bits": bits,
        "quantization.activation_bits": 8,
        "quantization.recover.epochs": size.stack[1],
        "quantization.recover.teacher": "baseline",
    }


def _pruned(size: Size, plugin: str = "channel_pruning", **more: Any) -> dict[str, Any]:
    return {f"{plugin}.{key}": value for key, value in more.items()} | {
        f"{plugin}.recover.epochs": size.stack[0],
        f"{plugin}.recover.teacher": "baseline",
    }


def _stacks(size: Size, width: int) -> list[Cell]:
    ratios = {16: (0.25, 0.375, 0.5), 64: (0.5, 0.625, 0.75)}[width]
    round_to = {16: 2, 64: 8}[width]
    steps = ("channel_pruning", "quantization")
    found = []
    for ratio in ratios:
        settings = _pruned(size, ratio=ratio, round_to=round_to) | _quantized(size, 4)
        found.append(Cell("stack", f"prune {ratio}, W4A8", steps, settings, control=ratio == ratios[1]))
    ratio = ratios[1]
    found += [
        Cell("stack", f"prune {ratio}", steps[:1], _pruned(size, ratio=ratio, round_to=round_to)),
        Cell(
            "stack",
            f"prune {ratio}, int8 static",
            steps,
            _pruned(size, ratio=ratio, round_to=round_to) | {"quantization.bits": 8},
        ),
        Cell(
            "stack",
            f"random {ratio}, W4A8",
            ("random_pruning", "quantization"),
            _pruned(size, "random_pruning", ratio=ratio) | _quantized(size, 4),
        ),
        Cell(
            "stack",
            "structured sparsity, W4A8",
            ("structured_sparsity", "quantization"),
            _pruned(size, "structured_sparsity", penalty=1, epochs=size.learn) | _quantized(size, 4),
        ),
        Cell(
            "stack",
            "magnitude 0.8, 4-bit codebook",
            ("magnitude_pruning", "weight_sharing"),
            _pruned(size, "magnitude_pruning", ratio=0.8)
            | {"weight_sharing.bits": 4, "weight_sharing.recover.epochs": size.stack[1]},
        ),
    ]
    return found


def _controls(size: Size, width: int) -> list[Cell]:
    total = size.epochs + size.stack[0]
    ratios = {16: 0.375, 64: 0.625}
    model = {"model.width": round(width * (1 - ratios[width])), "trainer.max_epochs": total}
    return [Cell("control", f"prune {ratios[width]}, from scratch", (), {}, model)]
