"""Names of modules as users write them."""

import pytest

from bigopt.vocabulary.patterns import fits, unknown
from bigopt.vocabulary.settings import StepOptions

NAMES = ["", "net", "net.features", "net.features.conv1", "net.features.conv2", "net.head"]


@pytest.mark.parametrize(
    ("pattern", "fitting"),
    [
        ("features.conv1", ["net.features.conv1"]),
        ("net.features.conv1", ["net.features.conv1"]),
        ("features.conv?", ["net.features.conv1", "net.features.conv2"]),
        ("*.conv2", ["net.features.conv2"]),
        ("head", ["net.head"]),
        ("*head", ["net.head"]),
        ("conv1", []),
        ("Head", []),
    ],
)
def test_a_pattern_fits_with_and_without_the_networks_own_name(pattern, fitting):
    assert [name for name in NAMES if fits(name, [pattern])] == fitting
    assert [name for name in NAMES if StepOptions(ignore=(pattern,)).ignores(name)] == fitting


def test_each_pattern_that_fits_nothing_gets_a_line_with_what_is_near():
    assert unknown("ignore", ["head", "features.*"], NAMES) == []
    lines = unknown("compression.x.ignore", ["features.convl", "zzz"], NAMES)
    assert lines[0] == (
        "compression.x.ignore: 'features.convl' fits no module; near: features.conv2, features.conv1, features"
    )
    assert lines[1] == (
        "compression.x.ignore: 'zzz' fits no module; some: net, features, features.conv1, features.conv2, head"
    )
