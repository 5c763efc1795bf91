"""What a plugin of each kind must return."""

from __future__ import annotations

from typing import Any

from bigopt.vocabulary.errors import RequestError

EXPECTED: dict[str, str] = {
    "models": "a torch.nn.Module",
    "datasets": "a bigopt.Data",
    "compression": "a bigopt.Part",
    "transfer": "a bigopt.Part",
    "recipe": "a bigopt.Part",
    "tuners": "None, a bigopt.Tuner, an Optuna sampler, a pair of sampler and pruner (or None), or a scheduler",
}
"""The contract of each kind, in words."""


def check_result(kind: str, name: str, made: Any) -> Any:
    """The object, if it is what plugins of its kind must return.

    Args:
        kind: a key of ``GROUPS``.
        name: the plugin that made it.
        made: what it returned.

    Raises:
        RequestError: it is something else.
    """
    if _fits(kind, made):
        return made
    got = f"the class {made.__name__}" if isinstance(made, type) else f"{made!r:.60} ({type(made).__name__})"
    raise RequestError(f"{kind} plugin {name!r} returned {got}, expected {EXPECTED[kind]}")


def _fits(kind: str, made: Any) -> bool:
    if kind == "models":
        from torch import nn

        return isinstance(made, nn.Module)
    if kind == "datasets":
        from bigopt.vocabulary.data import Data

        return isinstance(made, Data)
    if kind == "tuners":
        return _is_tuner(made)
    from bigopt.vocabulary.part import Part

    return isinstance(made, Part)


def _is_tuner(made: Any) -> bool:
    if made is None:
        return True
    if isinstance(made, type):
        return False
    from bigopt.vocabulary.tuner import Scheduler, Tuner

    if isinstance(made, Tuner | Scheduler):
        return True
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    if isinstance(made, tuple | list):
        return len(made) == 2 and isinstance(made[0], BaseSampler) and isinstance(made[1], BasePruner | None)
    return isinstance(made, BaseSampler)
