"""A dataset plugin: a function that returns ``bigopt.Data``; its typed signature is its configuration."""

from __future__ import annotations

from bigopt import Data, RequestError, Schema, TensorSplit
from bigopt.data import assemble, divide


def my_function(*, samples: int = 1000, noise: float = 0.2, seed: int = 0, val: float = 0.2, test: float = 0.2) -> Data:
    """Two half circles that reach into each other: two features, two classes.

    Args:
        samples: points in all splits together.
        noise: standard deviation of what is added to every point.
        seed: of the points and the splits, from the run.
        val: share of the samples for validation.
        test: share for testing.

    Raises:
        RequestError: an argument is out of range.
    """
    import torch
    from sklearn.datasets import make_moons

    if samples < 10:
        raise RequestError(f"samples: got {samples}, expected at least 10")
    points, labels = make_moons(samples, noise=noise, random_state=seed)
    everything = TensorSplit(torch.from_numpy(points).float(), torch.from_numpy(labels).long())
    schema = Schema("classification", "tabular", (2,), 2, ("upper", "lower"))
    train, validation, tested = divide(everything, val, test, seed)
    arguments = {"samples": samples, "noise": noise, "val": val, "test": test}
    return assemble("my_plugin", schema, train, validation, tested, seed=seed, arguments=arguments)
