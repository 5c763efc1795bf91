"""`search=auto` finds something for every built-in method, and what it finds are values of its arguments."""

import optuna
import pytest
import yaml

from bigopt import registry
from bigopt.config._complete import find
from bigopt.search.space import Space, ordered
from bigopt.search.syntax import parameters

WITHOUT = {
    "compression": {"reestimate_norm": "it only measures statistics again: nothing to trade"},
    "transfer": {"none": "does nothing"},
}
"""Methods without a space, each with the reason."""
REQUIRED = {"feature_concatenation": {"layers": ["*"]}}


def builtin(kind):
    return [name for name in registry.discover()[kind] if "@" not in name and find(kind, name).distribution == "bigopt"]


@pytest.mark.parametrize("kind", ["compression", "transfer"])
def test_every_method_has_a_space_or_a_reason(kind):
    names = builtin(kind)
    assert len(names) >= 9
    assert {name for name in names if not find(kind, name).facts.get("space")} == set(WITHOUT[kind])


CASES = [(kind, name) for kind in ("compression", "transfer") for name in builtin(kind) if name not in WITHOUT[kind]]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[name for _, name in CASES])
def test_what_a_space_proposes_are_values_of_the_arguments(kind, name):
    found, more = parameters(find(kind, name).facts["space"], "space")
    assert found and not more
    space = Space(parameters=ordered(found))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [space.suggest(study.ask()) for _ in range(8)]
    assert len({str(point) for point in points}) > 1
    for point in points:
        values = {key: yaml.safe_load(value) if isinstance(value, str) else value for key, value in point.items()}
        registry.bind(find(kind, name), {**REQUIRED.get(name, {}), **values}, name)
