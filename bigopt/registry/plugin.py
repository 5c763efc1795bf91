"""What is known of a plugin before it is imported."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bigopt.vocabulary.settings import StepOptions

GROUPS: dict[str, str] = {
    "models": "bigopt.models",
    "datasets": "bigopt.datasets",
    "compression": "bigopt.compression",
    "transfer": "bigopt.transfer",
    "tuners": "bigopt.tuners",
    "recipe": "bigopt.recipe",
}
"""Kinds of plugins, each with its entry-point group."""

FILLED: dict[str, tuple[str, ...]] = {
    "models": ("in_channels", "image_size", "in_features", "num_classes", "vocab_size"),
    "datasets": ("seed",),
    "tuners": ("seed", "n_trials", "max_resource", "directions"),
}
"""Arguments that a run fills in, by kind, unless the configuration sets them."""

_STEP = tuple(option.name for option in fields(StepOptions))
RESERVED: dict[str, tuple[str, ...]] = {
    kind: ("name", *{"compression": _STEP, "recipe": ("plugin",), "models": ("weights",)}.get(kind, ()))
    for kind in GROUPS
}
"""Argument names that belong to the core, by kind: they stand in the configuration beside a plugin's own."""


@dataclass(frozen=True)
class Computed:
    """A default that only the plugin's own code can produce; leaving the argument out gives it.

    Attributes:
        text: how it shows in a listing.
    """

    text: str

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Argument:
    """One argument of a plugin's signature.

    Attributes:
        name: what the configuration calls it.
        annotation: source text of its type, type aliases written out; empty for none.
        default: its default, :class:`Computed` where that is no plain value; None when it is required.
        required: whether it has no default.
    """

    name: str
    annotation: str = ""
    default: Any = None
    required: bool = False


@dataclass(frozen=True)
class Plugin:
    """One plugin, as its distribution and its source describe it.

    Attributes:
        kind: a key of :data:`GROUPS`.
        name: what the configuration calls it.
        target: ``package.module:Attribute``.
        distribution: name of the distribution that offers it.
        version: that distribution's version.
        summary: first line of its docstring.
        arguments: its signature; None when that is unknown, since the plugin is broken.
        error: why it cannot be used; None for a plugin in order.
        conf_dir: the folder ``conf`` of its package, if there is one.
        facts: class attributes with literal values, inherited ones too (``needs``, ``leaves``, ``strengths``, …).
        variadic: whether it takes further arguments (``**kwargs``).
    """

    kind: str
    name: str
    target: str
    distribution: str = ""
    version: str = ""
    summary: str = ""
    arguments: list[Argument] | None = None
    error: str | None = None
    conf_dir: Path | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    variadic: bool = False

    @property
    def module(self) -> str:
        """Dotted name of the module that holds it."""
        return self.target.partition(":")[0].strip()

    @property
    def attribute(self) -> str:
        """Its name inside the module."""
        return self.target.partition(":")[2].strip()

    @property
    def problem(self) -> str | None:
        """Why it cannot be used, as one line that names it; None for a plugin in order."""
        if self.error is None:
            return None
        return f"{self.kind} plugin {self.name!r} ({self.distribution} {self.version}) is broken: {self.error}"
