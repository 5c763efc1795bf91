import json

import pytest
import torch
from small_nets import SPECS, build, inputs, logits, prune, spec, trained
from torch import nn

from bigopt.pipeline.structure import load_structure, record, save_structure
from bigopt.store import load_tensors, save_tensors
from bigopt.store.tensors import read_safetensors
from bigopt.vocabulary.errors import RequestError


def elsewhere(spec):
    """A dense network whose own weights are certainly not the saved ones."""
    torch.manual_seed(99)
    return build(spec)


def save(network, name, folder, **changes):
    save_structure(network, spec(name, **changes), network.changes, folder)
    return folder


@pytest.mark.parametrize("name", SPECS)
def test_a_pruned_model_comes_back_to_the_last_bit(name, tmp_path):
    network = prune(trained(name), name)
    expected = logits(network, name)
    again = load_structure(save(network, name, tmp_path), elsewhere)
    assert (logits(again, name) - expected).abs().max().item() == 0.0
    assert again.changes == network.changes and len(network.changes) >= 2
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in again.state_dict().items()} == shapes
    assert repr(again) == repr(network)  # in_features and the like agree with the tensors


@pytest.mark.parametrize("name", ["resnet", "hf_vision", "hf_text"])
def test_it_can_be_pruned_and_trained_further_and_saved_again(name, tmp_path):
    network = prune(trained(name), name)
    again = prune(load_structure(save(network, name, tmp_path / "first"), elsewhere), name)
    assert len(again.changes) == 2 * len(network.changes)
    before = logits(again, name)
    third = load_structure(save(again, name, tmp_path / "second"), elsewhere)
    assert torch.equal(logits(third, name), before)
    nn.functional.cross_entropy(third(inputs(name)), torch.arange(4)).backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in third.parameters())


def test_heads_are_counted_anew(tmp_path):
    network = prune(trained("hf_text"), "hf_text")
    again = load_structure(save(network, "hf_text", tmp_path), elsewhere)
    attention = again.net.bert.encoder.layer[1].attention.self
    assert (attention.num_attention_heads, attention.all_head_size, attention.query.out_features) == (2, 8, 8)


def test_a_dense_model_comes_back_too(tmp_path):
    network = trained("mlp")
    assert torch.equal(logits(load_structure(save(network, "mlp", tmp_path), elsewhere), "mlp"), logits(network, "mlp"))


def test_the_files_are_plain_and_small(tmp_path):
    network = prune(trained("resnet"), "resnet")
    save_structure(network, {**spec("resnet"), "weights": "somewhere/else"}, network.changes, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "structure.json"]
    found = json.loads((tmp_path / "structure.json").read_text())
    assert (found["schema"], found["spec"], found["changes"]) == (1, spec("resnet"), network.changes)
    assert found["sizes"]["net.stages.1.0.body.1.conv"]["out_channels"] == 4
    tensors = load_tensors(tmp_path / "model.safetensors")
    assert all(torch.equal(tensors[key], value) for key, value in network.state_dict().items())
    assert len(json.dumps(found)) < 12_000


def test_a_crash_between_the_two_files_is_harmless(tmp_path):
    network = trained("resnet")
    save(network, "resnet", tmp_path)
    old = (tmp_path / "structure.json").read_bytes()
    save(prune(network, "resnet"), "resnet", tmp_path)
    (tmp_path / "structure.json").write_bytes(old)  # as if it had stopped after the weights
    assert torch.equal(logits(load_structure(tmp_path, elsewhere), "resnet"), logits(network, "resnet"))


def test_a_failing_write_leaves_the_old_model(tmp_path, monkeypatch):
    save(trained("mlp"), "mlp", tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(trained("mlp", seed=5), "mlp", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


class Square(nn.Module):
    def forward(self, x):
        return x * x


def square(model, entry):
    """Repeats the change of the tests' own: an activation becomes a square."""
    owner, _, leaf = entry["layer"].rpartition(".")
    setattr(model.get_submodule(owner), leaf, Square())


def test_other_changes_are_repeated_by_their_handlers_in_order(tmp_path):
    network = trained("mlp")
    square(network, {"layer": "net.body.relu1"})
    record(network, [{"op": "square", "plugin": "channel_pruning", "layer": "net.body.relu1"}])
    prune(network, "mlp")
    assert [entry["op"] for entry in network.changes] == ["square", "prune", "prune"]
    save(network, "mlp", tmp_path)
    seen = []

    def noted(model, entry):
        seen.append(entry["layer"])
        square(model, entry)

    again = load_structure(tmp_path, elsewhere, {"square": noted})
    assert seen == ["net.body.relu1"]
    assert torch.equal(logits(again, "mlp"), logits(network, "mlp"))
    with pytest.raises(RequestError, match="the plugin channel_pruning cannot repeat the change 'square'"):
        load_structure(tmp_path, elsewhere)


def test_the_plugin_that_an_entry_names_repeats_it(tmp_path, monkeypatch):
    class Plugin:
        replay = staticmethod(square)

    network, dense = trained("mlp"), trained("mlp", seed=99)
    square(network, {"layer": "net.body.relu2"})
    record(network, [{"op": "square", "plugin": "theirs", "layer": "net.body.relu2"}])
    save(network, "mlp", tmp_path)
    asked = []
    monkeypatch.setattr("bigopt.registry.load", lambda kind, name: asked.append((kind, name)) or Plugin)
    again = load_structure(tmp_path, lambda _: dense)
    assert asked == [("compression", "theirs")]
    assert torch.equal(logits(again, "mlp"), logits(network, "mlp"))


def test_a_plugin_that_is_not_registered_is_not_imported(tmp_path):
    network = trained("mlp")
    record(network, [{"op": "evil", "plugin": "os:system"}])
    save(network, "mlp", tmp_path)
    with pytest.raises(RequestError, match="os:system"):
        load_structure(tmp_path, elsewhere)


def test_record_takes_plain_changes_only():
    network = trained("mlp")
    with pytest.raises(ValueError, match="needs an op"):
        record(network, [{"layer": "x"}])
    with pytest.raises(ValueError, match="'square' needs the plugin that can repeat it"):
        record(network, [{"op": "square"}])
    with pytest.raises(TypeError):
        record(network, [{"op": "prune", "channels": torch.tensor([1])}])
    assert network.changes == []
    record(network, [{"op": "prune", "layer": "net.body.fc1", "channels": (1, 2)}])
    assert network.changes == [{"op": "prune", "layer": "net.body.fc1", "channels": [1, 2]}]


def test_another_architecture_is_refused_with_the_first_keys_of_each_sort(tmp_path):
    network = prune(trained("resnet"), "resnet")
    save(network, "resnet", tmp_path)
    with pytest.raises(RequestError) as caught:
        load_structure(tmp_path, lambda _: build(spec("mlp")))
    first, *rest = caught.value.problems
    assert "weights of another model than this one" in first and "resnet" in first
    missing, unexpected = rest
    assert missing == "4 missing: net.body.fc1.weight, net.body.fc1.bias, net.body.fc2.weight, net.body.fc2.bias"
    extra = [key for key in network.state_dict() if key not in build(spec("mlp")).state_dict()]
    assert unexpected == f"{len(extra)} unexpected: {', '.join(sorted(extra)[:5])}, … and {len(extra) - 5} more"


def test_a_wider_model_than_the_one_built_is_refused(tmp_path):
    save(prune(trained("resnet", width=8), "resnet"), "resnet", tmp_path, width=8)
    network = prune(trained("resnet", width=16), "resnet")
    save(network, "resnet", tmp_path, width=16)
    with pytest.raises(RequestError, match="mismatched: .*net.stem.conv.weight is \\[8, 1, 3, 3\\]"):
        load_structure(tmp_path, lambda _: build(spec("resnet")))


def test_a_dense_run_is_not_taken_for_a_pruned_one(tmp_path):
    save(trained("resnet"), "resnet", tmp_path)
    with pytest.raises(RequestError, match="mismatched"):
        load_structure(tmp_path, lambda _: build(spec("resnet", width=8)))


@pytest.mark.parametrize("pruned", [False, True])
@pytest.mark.parametrize("name", ["resnet", "hf_text"])
def test_another_number_of_classes(name, pruned, tmp_path):
    network = trained(name, num_classes=7)
    if pruned:
        prune(network, name)
    save(network, name, tmp_path)
    last = "net.head" if name == "resnet" else "net.classifier"
    with pytest.raises(RequestError, match=f"its last layer {last} is for 7 outputs, the model's is for 10"):
        load_structure(tmp_path, elsewhere)
    again = load_structure(tmp_path, elsewhere, allow_new_head=True)
    assert logits(again, name).shape == (4, 10)
    assert again.get_submodule(last).out_features == 10
    assert again.get_submodule(last).in_features == network.get_submodule(last).in_features
    for key, tensor in network.state_dict().items():
        if not key.startswith(last):
            assert torch.equal(again.state_dict()[key], tensor)


def tampered(folder, change):
    """Changes what the header of the weights says about the structure."""
    tensors, header = read_safetensors(folder / "model.safetensors")
    found = json.loads(header["structure"])
    change(found)
    save_tensors(folder / "model.safetensors", tensors, {"structure": json.dumps(found)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.update(schema=2), "got schema 2, expected 1"),
        (lambda f: f.update(spec=[]), "spec should be a dict, got list"),
        (lambda f: f.update(changes={}), "changes should be a list, got dict"),
        (lambda f: f["changes"].append({"layer": "x"}), "every change needs an op"),
        (lambda f: f["sizes"].update(net=3), "sizes should be a mapping of mappings"),
        (lambda f: f["sizes"].update({"net.nowhere": {"x": 1}}), "sizes.net.nowhere.x: got 1, the model has None"),
        (lambda f: f["sizes"]["net.head"].update(forward=1), "sizes.net.head.forward: got 1"),
        (lambda f: f["sizes"]["net.head"].update(out_features="10"), "sizes.net.head.out_features: got '10'"),
        (lambda f: f["sizes"]["net.head"].update(training=0), "sizes.net.head.training: got 0"),
        (lambda f: f["changes"].append({"op": "x"}), "the change 'x' names no plugin that could repeat it"),
    ],
)
def test_a_tampered_structure_is_refused(change, message, tmp_path):
    save(prune(trained("mlp"), "mlp"), "mlp", tmp_path)
    tampered(tmp_path, change)
    with pytest.raises(RequestError, match=message):
        load_structure(tmp_path, elsewhere)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(RequestError, match=r"cannot read structure\.json and model\.safetensors"):
        load_structure(tmp_path, elsewhere)
    save(trained("mlp"), "mlp", tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RequestError, match="not an intact safetensors file"):
        load_structure(tmp_path, elsewhere)
    save_tensors(weights, trained("mlp").state_dict(), {"structure": "{not json"})
    with pytest.raises(RequestError, match="the structure in its header is not JSON"):
        load_structure(tmp_path, elsewhere)


def test_a_header_without_the_structure_leaves_the_file_beside_it(tmp_path):
    network = prune(trained("mlp"), "mlp")
    save(network, "mlp", tmp_path)
    save_tensors(tmp_path / "model.safetensors", network.state_dict())
    assert torch.equal(logits(load_structure(tmp_path, elsewhere), "mlp"), logits(network, "mlp"))
    (tmp_path / "structure.json").write_text("[]")
    with pytest.raises(RequestError, match="got schema 'list', expected 1"):
        load_structure(tmp_path, elsewhere)
