import json
import pickle
import shutil

import pytest
import torch
from small_nets import SPECS, TINY, build, logits, prune, spec, trained
from torch import nn

from bigopt.pipeline.structure import save_structure
from bigopt.pipeline.weights import load_into
from bigopt.store import save_tensors
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network, Normalize


def fresh(name, num_classes=10, **changes):
    torch.manual_seed(99)
    return build(spec(name, **changes), num_classes)


def state(network):
    return {key: tensor.clone() for key, tensor in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def saved(network, name, folder):
    save_structure(network, spec(name), network.changes, folder)
    return folder


@pytest.mark.parametrize("name", ["resnet", "hf_text"])
def test_a_run_folder_brings_weights_structure_and_normalisation(name, tmp_path):
    source = prune(trained(name), name)
    if name == "resnet":
        source.normalize = Normalize(torch.tensor([0.1]), torch.tensor([0.7]), spatial=True)
    network = fresh(name)
    said = load_into(network, saved(source, name, tmp_path))
    assert torch.equal(logits(network, name), logits(source, name))
    assert network.changes == source.changes
    assert f"{len(source.changes)} structural changes repeated" in said and str(tmp_path) in said


def test_the_weights_file_of_a_run_stands_for_the_run(tmp_path):
    source, network = prune(trained("mlp"), "mlp"), fresh("mlp")
    load_into(network, str(saved(source, "mlp", tmp_path) / "model.safetensors"))
    assert torch.equal(logits(network, "mlp"), logits(source, "mlp"))


def test_a_network_that_was_changed_already_is_built_anew(tmp_path):
    source, network = prune(trained("mlp"), "mlp"), prune(fresh("mlp"), "mlp")
    saved(source, "mlp", tmp_path)
    with pytest.raises(RequestError, match="was changed already, and nothing can build it anew"):
        load_into(network, tmp_path)
    built = []
    load_into(network, tmp_path, build=lambda spec: built.append(spec) or fresh(spec["name"]))
    assert built == [spec("mlp")]
    assert torch.equal(logits(network, "mlp"), logits(source, "mlp"))
    assert network.changes == source.changes


def test_a_run_of_another_model_leaves_the_network_as_it_was(tmp_path):
    saved(prune(trained("resnet"), "resnet"), "resnet", tmp_path)
    network = fresh("mlp")
    before = state(network)
    with pytest.raises(RequestError) as caught:
        load_into(network, tmp_path)
    assert "{'name': 'resnet', 'in_channels': 1, 'width': 4}" in caught.value.problems[0]
    assert same(state(network), before) and network.changes == []


WRITERS = {
    "safetensors": lambda tensors, path: save_tensors(path, tensors),
    "torch.save": torch.save,
    "a Lightning checkpoint": lambda tensors, path: torch.save({"state_dict": tensors, "epoch": 3}, path),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize("prefix", ["net.", "", "module.", "model.net.", "_orig_mod."])
def test_state_dicts_with_and_without_prefixes(prefix, write, tmp_path):
    source, network = trained("resnet"), fresh("resnet")
    inner = {f"{prefix}{key}": tensor for key, tensor in source.net.state_dict().items()}
    path = tmp_path / "weights.bin"
    write(inner, path)
    own = network.normalize.mean.clone()
    said = load_into(network, path)
    assert same(network.net.state_dict(), source.net.state_dict())
    assert torch.equal(network.normalize.mean, own)
    assert said == f"weights {path}: {len(inner)} tensors"


def test_a_whole_network_brings_its_normalisation(tmp_path):
    source, network = trained("mlp"), fresh("mlp")
    source.normalize = Normalize(torch.tensor([0.9]), torch.tensor([2.0]), spatial=True)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_into(network, tmp_path / "w.pt")
    assert torch.equal(logits(network, "mlp"), logits(source, "mlp"))


def test_old_files_without_batch_counters(tmp_path):
    source, network = trained("resnet"), fresh("resnet")
    kept = {key: value for key, value in source.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save(kept, tmp_path / "w.pt")
    load_into(network, tmp_path / "w.pt")
    assert torch.equal(logits(network, "resnet"), logits(source, "resnet"))


def test_another_architecture_lists_five_keys_of_each_sort(tmp_path):
    torch.save(trained("resnet", width=8).net.state_dict(), tmp_path / "w.pt")
    network = fresh("resnet")
    before = state(network)
    tensors = torch.load(tmp_path / "w.pt", weights_only=True)
    for number in range(7):
        tensors[f"extra.{number}"] = torch.zeros(1)
    del tensors["stem.bn.weight"], tensors["stem.bn.bias"]
    torch.save(tensors, tmp_path / "w.pt")
    with pytest.raises(RequestError) as caught:
        load_into(network, tmp_path / "w.pt")
    head, missing, unexpected, mismatched = caught.value.problems
    assert head == f"weights {tmp_path / 'w.pt'}: of another architecture"
    assert missing == "2 missing: net.stem.bn.weight, net.stem.bn.bias"
    assert unexpected == "7 unexpected: " + ", ".join(f"net.extra.{i}" for i in range(5)) + ", … and 2 more"
    assert mismatched.startswith("44 mismatched: net.stem.conv.weight is [8, 1, 3, 3], the model's [4, 1, 3, 3], ")
    assert mismatched.count(" is [") == 5 and mismatched.endswith(", … and 39 more")
    assert same(state(network), before)


@pytest.mark.parametrize("name", ["mlp", "resnet", "hf_vision", "hf_text"])
def test_another_number_of_classes_is_named_or_allowed(name, tmp_path):
    source, network = trained(name, num_classes=7), fresh(name)
    torch.save(source.net.state_dict(), tmp_path / "w.pt")
    before = state(network)
    last = "net.classifier" if name.startswith("hf_") else "net.head"
    with pytest.raises(RequestError, match=f"its last layer {last} is for 7 outputs, the model's is for 10"):
        load_into(network, tmp_path / "w.pt")
    assert same(state(network), before)
    assert "the last layer is new" in load_into(network, tmp_path / "w.pt", allow_new_head=True)
    for key, tensor in state(network).items():
        expected = before if key.startswith((last, "normalize")) else source.state_dict()
        assert torch.equal(tensor, expected[key]), key


def test_a_missing_last_layer_is_named_or_allowed(tmp_path):
    source, network = trained("resnet"), fresh("resnet")
    torch.save({k: v for k, v in source.net.state_dict().items() if not k.startswith("head.")}, tmp_path / "w.pt")
    with pytest.raises(RequestError, match="its last layer net.head is missing"):
        load_into(network, tmp_path / "w.pt")
    load_into(network, tmp_path / "w.pt", allow_new_head=True)
    assert torch.equal(network.net.stem.conv.weight, source.net.stem.conv.weight)


def test_a_pruned_run_for_other_classes(tmp_path):
    source, network = prune(trained("resnet", num_classes=7), "resnet"), fresh("resnet")
    saved(source, "resnet", tmp_path)
    with pytest.raises(RequestError, match="its last layer net.head is for 7 outputs, the model's is for 10"):
        load_into(network, tmp_path)
    own = network.net.head.weight.clone()
    assert "; the last layer is new" in load_into(network, tmp_path, allow_new_head=True)
    assert logits(network, "resnet").shape == (4, 10)
    assert torch.equal(network.net.head.weight, own[:, :8])


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_hostile_files_run_nothing(tmp_path):
    sprung = tmp_path / "sprung"
    trap, network = Trap(str(sprung)), fresh("mlp")
    before = state(network)
    good = {key: tensor for key, tensor in trained("mlp").state_dict().items()}
    bare = tmp_path / "bare.pkl"
    bare.write_bytes(pickle.dumps(trap))
    torch.save({**good, "extra": trap}, tmp_path / "zip.pt")
    torch.save(trap, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(trained("mlp"), tmp_path / "module.pt")  # a whole module is code as well
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(good, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-200])
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(RequestError, match=file.name):
            load_into(network, file)
    assert not sprung.exists() and same(state(network), before)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere/at/all", "no such file"),
        ("https://example.org/model.safetensors", "nothing is loaded from a URL"),
        ("file:///etc/passwd", "nothing is loaded from a URL"),
    ],
)
def test_nothing_there(source, message):
    with pytest.raises(RequestError, match=message):
        load_into(fresh("mlp"), source)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(RequestError, match=r"a folder without structure\.json, config\.json or model\.safetensors"):
        load_into(fresh("mlp"), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RequestError, match=r"has a config\.json, but neither"):
        load_into(fresh("mlp"), tmp_path)


@pytest.fixture
def transformers_folder(tmp_path):
    source = trained("hf_text")
    source.net.save_pretrained(tmp_path)
    return tmp_path, source


def test_a_transformers_folder(transformers_folder):
    folder, source = transformers_folder
    network = fresh("hf_text")
    load_into(network, folder)
    assert torch.equal(logits(network, "hf_text"), logits(source, "hf_text"))


def test_a_sharded_transformers_folder(transformers_folder, tmp_path):
    folder, source = transformers_folder
    shutil.rmtree(folder / "shards", ignore_errors=True)
    source.net.save_pretrained(folder / "shards", max_shard_size="8KB")
    assert len(list((folder / "shards").glob("*.safetensors"))) > 1
    network = fresh("hf_text")
    load_into(network, folder / "shards")
    assert torch.equal(logits(network, "hf_text"), logits(source, "hf_text"))
    index = folder / "shards" / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    found["weight_map"]["classifier.bias"] = "../model.safetensors"
    index.write_text(json.dumps(found))
    with pytest.raises(RequestError, match="leads out of"):
        load_into(network, folder / "shards")


def test_names_of_older_releases_are_translated(tmp_path):
    """ViT's layers were called differently in transformers 4, and LayerNorm's tensors in older ones still."""
    source, network = trained("hf_vision"), fresh("hf_vision")
    source.net.config.save_pretrained(tmp_path)
    renames = {
        "vit.layers.": "vit.encoder.layer.",
        "attention.q_proj": "attention.attention.query",
        "attention.k_proj": "attention.attention.key",
        "attention.v_proj": "attention.attention.value",
        "attention.o_proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    old = {}
    for key, tensor in source.net.state_dict().items():
        for new_name, old_name in renames.items():
            key = key.replace(new_name, old_name)
        old[key] = tensor
    assert "vit.encoder.layer.0.attention.attention.query.weight" in old
    save_tensors(tmp_path / "model.safetensors", old)
    load_into(network, tmp_path)
    assert torch.equal(logits(network, "hf_vision"), logits(source, "hf_vision"))


def test_an_encoder_without_head_and_a_head_of_another_task(transformers_folder, tmp_path_factory):
    _, source = transformers_folder
    folder = tmp_path_factory.mktemp("encoder")
    source.net.bert.save_pretrained(folder)
    network = fresh("hf_text")
    with pytest.raises(RequestError, match="its last layer net.classifier is missing"):
        load_into(network, folder)
    tensors = {f"bert.{key}": tensor for key, tensor in source.net.bert.state_dict().items()}
    save_tensors(folder / "model.safetensors", {**tensors, "cls.predictions.bias": torch.zeros(40)})
    load_into(network, folder, allow_new_head=True)
    assert same(network.net.bert.state_dict(), source.net.bert.state_dict())


def test_a_transformers_folder_of_another_size(transformers_folder):
    folder, _ = transformers_folder
    wide = fresh("hf_text", config={**TINY, "hidden_size": 32})
    with pytest.raises(RequestError, match=r"mismatched: net\.bert\.embeddings\.word_embeddings\.weight is \[40, 16\]"):
        load_into(wide, folder)
    with pytest.raises(RequestError, match="unexpected"):
        load_into(fresh("mlp"), folder)


def test_a_net_of_strangers_without_linear_layers(tmp_path):
    def net():
        return Network(nn.Sequential(nn.PReLU(3)))

    source, network = net(), net()
    nn.init.constant_(source.net[0].weight, 0.7)
    save_structure(source, {"name": "custom"}, [], tmp_path)
    load_into(network, tmp_path)
    assert network.net[0].weight.tolist() == source.net[0].weight.tolist()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    load_into(net(), tmp_path / "w.pt")


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A tracking store with one run that holds a pruned model, registered under a name."""
    from bigopt.tracking.target import resolve

    root = tmp_path_factory.mktemp("tracking")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    target = resolve(uri, root)
    client = target.client()
    experiment = client.create_experiment("weights", artifact_location=(root / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    source = prune(trained("resnet"), "resnet")
    saved(source, "resnet", root / "run")
    client.log_artifacts(run, str(root / "run"))
    torch.save(source.net.state_dict(), root / "bare.pt")
    dense = trained("resnet", seed=8)
    torch.save(dense.net.state_dict(), root / "dense.pt")
    client.log_artifact(run, str(root / "dense.pt"), "deeper/still")
    client.create_registered_model("net")
    client.create_model_version("net", f"runs:/{run}/model", run_id=run)
    client.set_registered_model_alias("net", "best", "1")
    empty = client.create_run(experiment).info.run_id
    return uri, run, empty, source, dense


@pytest.mark.parametrize("form", ["runs:/{run}", "runs:/{run}/model.safetensors", "models:/net/1", "models:/net@best"])
def test_a_run_or_a_registered_model_of_the_tracking_store(tracked, form):
    uri, run, _, source, _ = tracked
    network = fresh("resnet")
    said = load_into(network, form.format(run=run), tracking_uri=uri)
    assert torch.equal(logits(network, "resnet"), logits(source, "resnet"))
    assert network.changes == source.changes
    assert form.format(run=run) in said and "structural changes repeated" in said


@pytest.mark.parametrize("path", ["deeper", "deeper/still", "deeper/still/dense.pt"])
def test_weights_deeper_in_a_runs_artifacts(tracked, path, monkeypatch):
    uri, run, _, _, dense = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    network = fresh("resnet")
    load_into(network, f"runs:/{run}/{path}")
    assert torch.equal(logits(network, "resnet"), logits(dense, "resnet"))


def test_what_the_tracking_store_does_not_have(tracked, tmp_path, monkeypatch):
    uri, _, empty, _, _ = tracked
    cases = {
        f"runs:/{empty}": "has no weights",
        "runs:/0123456789abcdef": "not to be had from .*0123456789abcdef",
        "runs:/": "expected runs:/<run id>",
        "models:/net/7": "not to be had from",
        "models:/other/1": "not to be had from",
        "models:/net": "expected runs:/<run id>",
    }
    for source, message in cases.items():
        with pytest.raises(RequestError, match=message):
            load_into(fresh("resnet"), source, tracking_uri=uri)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RequestError, match=r"there is no tracking store sqlite:///.*mlflow\.db"):
        load_into(fresh("resnet"), f"runs:/{empty}")
    assert list(tmp_path.iterdir()) == []


def test_every_topology_can_start_from_its_own_weights(tmp_path):
    for name in SPECS:
        source, network = trained(name), fresh(name)
        torch.save(source.state_dict(), tmp_path / "w.pt")
        load_into(network, tmp_path / "w.pt")
        assert torch.equal(logits(network, name), logits(source, name))
