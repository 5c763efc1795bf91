"""Which config group holds what: plugins of a kind, or a settings dataclass."""

from __future__ import annotations

from typing import Any

from bigopt.vocabulary import settings

PLUGINS: dict[str, str] = {
    "model": "models",
    "dataset": "datasets",
    "transfer": "transfer",
    "compression": "compression",
    "recipe": "recipe",
    "augment": "recipe",
    "norm": "recipe",
    "tuner": "tuners",
}
"""Config groups whose choices are plugins, with the registry's kind."""

STEPS = ("compression", "recipe")
"""Groups that hold an ordered list of steps, each under its own name."""

SLOTS = ("augment", "norm")
"""Recipe groups that hold one choice, ``none`` for nothing."""

SETTINGS: dict[str, type[Any]] = {
    "trainer": settings.Trainer,
    "optimizer": settings.Optimizer,
    "scheduler": settings.Scheduler,
    "budget": settings.Budget,
    "measure": settings.Measure,
    "evaluate": settings.Evaluate,
    "tracking": settings.Tracking,
}
"""Config groups whose schema is a dataclass of the vocabulary."""

SCALARS = ("seed", "objective", "control", "cache", "resume")
"""Keys of the root configuration that are no groups."""

GLOBAL = ("experiment", "search", "debug")
"""Groups whose files speak about the whole configuration without saying so in a header."""

NONE = "none"
