"""Models out of other people's code: timm, and the user's own."""

import sys
import types

import pytest
import torch
from torch import nn

from bigopt import registry
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.models.custom import custom
from bigopt_plugins.models.timm import timm_model

IMAGE = {"in_channels": 3, "image_size": 16, "num_classes": 4}


def toy(pretrained=False, **kwargs):
    return _Toy(**kwargs)


def sized(pretrained=False, img_size=224, **kwargs):
    return _Toy(img_size=img_size, **kwargs)


class _Toy(nn.Module):
    def __init__(self, in_chans=3, num_classes=1000, img_size=None, drop_rate=0.0):
        super().__init__()
        self.img_size = img_size
        self.drop_rate = drop_rate
        self.fc = nn.Linear(in_chans, num_classes)

    def forward(self, x):
        if self.img_size not in (None, x.shape[-1]):
            raise AssertionError(f"Input height ({x.shape[-1]}) doesn't match model ({self.img_size}).")
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def fake_timm(monkeypatch):
    """As much of timm's interface as the plugin uses; the library itself is an extra."""
    module = types.ModuleType("timm")
    entries = {"toy": toy, "sized": sized, "vit_sized": toy}
    module.list_models = lambda: list(entries)
    module.model_entrypoint = entries.__getitem__
    module.get_pretrained_cfg = lambda name: types.SimpleNamespace(fixed_input_size=name == "vit_sized")
    module.calls = []

    def create_model(name, pretrained, **kwargs):
        module.calls.append((name, pretrained, kwargs))
        return entries[name](**kwargs)

    module.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", module)
    return module


def test_timm_gets_channels_and_classes_from_the_data_and_loads_nothing(fake_timm):
    model = timm_model(**IMAGE, architecture="toy", args={"drop_rate": 0.5})
    assert fake_timm.calls == [("toy", False, {"in_chans": 3, "num_classes": 4, "drop_rate": 0.5})]
    assert model(torch.rand(2, 3, 16, 16)).shape == (2, 4)


def test_timm_models_of_a_fixed_size_get_the_images_size(fake_timm):
    assert timm_model(**IMAGE, architecture="sized").img_size == 16
    assert timm_model(**IMAGE, architecture="vit_sized").img_size == 16
    with pytest.raises(RequestError, match=r"sized cannot take samples of shape \[3, 16, 16\]: Input height"):
        timm_model(**IMAGE, architecture="sized", args={"img_size": 32})


def test_timm_refuses_wrong_names_together(fake_timm):
    with pytest.raises(RequestError) as caught:
        timm_model(**IMAGE, architecture="tyo", args={"pretrained": True, "checkpoint_path": "x"})
    assert len(caught.value.problems) == 3
    assert "architecture: got 'tyo', expected one of toy, sized, vit_sized; did you mean toy" in str(caught.value)
    assert "args.pretrained: not allowed here" in str(caught.value)
    with pytest.raises(RequestError, match="args: timm refuses {'nonsense': 1} for toy: .*nonsense"):
        timm_model(**IMAGE, architecture="toy", args={"nonsense": 1})


def test_missing_timm_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(RequestError, match=r"not installed; try: pip install 'bigopt\[vision\]'"):
        timm_model(**IMAGE)


def test_timm_broken_by_torchvision_says_so(monkeypatch, tmp_path):
    package = tmp_path / "timm"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RequestError, match=r"operator torchvision::nms does not exist.*bigopt doctor"):
        timm_model(**IMAGE)


@pytest.fixture
def own_code(monkeypatch, tmp_path):
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n"
        "class Mine(nn.Linear):\n"
        "    def __init__(self, in_features, num_classes, bias=True):\n"
        "        super().__init__(in_features, num_classes, bias)\n"
        "class Outer:\n"
        "    class Inner(nn.Identity):\n"
        "        pass\n"
        "def number(): return 3\n"
        "text = 'no function'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.mark.parametrize("where", [{"target": "my_nets:Mine"}, {"_target_": "my_nets.Mine"}])
def test_custom_gets_what_its_signature_names(own_code, caplog, where):
    before = list(sys.path)
    model = custom(**where, args={"bias": False}, in_features=6, num_classes=2, in_channels=1)
    assert (model.in_features, model.out_features, model.bias) == (6, 2, None)
    assert "model=custom imports and runs the code of my_nets" in caplog.text
    assert sys.path == before


def test_custom_lets_the_users_arguments_win(own_code):
    model = custom(target="my_nets:Mine", args={"num_classes": 5}, in_features=6, num_classes=2)
    assert model.out_features == 5


def test_custom_through_the_registry(own_code):
    context = {"in_channels": 1, "image_size": 4, "in_features": 16, "num_classes": 3}
    model = registry.build("models", "custom", {"target": "my_nets:Mine"}, context)
    assert (model.in_features, model.out_features) == (16, 3)
    assert isinstance(registry.build("models", "custom", {"target": "my_nets:Outer.Inner"}, context), nn.Identity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "target: set target=package.module:Class"),
        ({"target": "a:B", "_target_": "a.B"}, "one of the two"),
        ({"target": "justaname"}, "target: got 'justaname', expected package.module:Class"),
        ({"target": "os; import sys:x"}, "expected package.module:Class"),
        ({"target": "my_nets:Absent"}, "cannot import my_nets:Absent: AttributeError"),
        ({"target": "no_such_module_anywhere:X"}, "cannot import no_such_module_anywhere:X: ModuleNotFoundError"),
        ({"target": "my_nets:text"}, "is a str, expected a class or a function"),
        ({"target": "my_nets:number"}, "returned int, expected a torch.nn.Module"),
        ({"target": "my_nets:Mine"}, "args: got .*but my_nets:Mine takes in_features, num_classes, bias: missing"),
        ({"target": "my_nets:Outer", "args": {"colour": 1}}, "got .'colour'., but my_nets:Outer takes"),
    ],
)
def test_custom_says_what_is_wrong(own_code, arguments, message):
    with pytest.raises(RequestError, match=message):
        custom(**arguments)
