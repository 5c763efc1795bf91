import json
import pickle
import shutil

import pytest
import torch
from model_nets import ARGUMENTS, TINY, TOKENS, inputs, small, stirred
from onnxruntime import InferenceSession
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from bigopt.data.pretrained import pretrained_folder
from bigopt.measure.export import export_onnx
from bigopt.surgery import Groups
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.models.hf_text import hf_text
from bigopt_plugins.models.hf_vision import hf_vision

TEXT = {"vocab_size": TOKENS, "num_classes": 10, "in_features": 12}
IMAGE = {"in_channels": 1, "image_size": 8, "num_classes": 10}


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(3)
    model = hf_text(**TEXT, config=TINY)
    model.save_pretrained(folder)
    return folder, model.eval()


@pytest.mark.parametrize(("size", "patch"), [(8, 2), (28, 4), (32, 4), (29, 4), (7, 2), (224, 28)])
def test_patches_follow_the_image(size, patch):
    model = hf_vision(in_channels=3, image_size=size, num_classes=5, config=TINY)
    assert model.config.patch_size == patch
    assert (model.config.num_channels, model.config.image_size, model.classifier.out_features) == (3, size, 5)


@pytest.mark.parametrize("model", [hf_vision(**IMAGE), hf_text(**TEXT)], ids=["vision", "text"])
def test_attention_is_plain_so_that_it_can_be_traced_and_counted(model):
    assert model.config._attn_implementation == "eager"
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())


def test_text_model_has_a_position_for_every_token():
    assert hf_text(**TEXT, config=TINY).config.max_position_embeddings == 64
    assert hf_text(**{**TEXT, "in_features": 200}, config=TINY).config.max_position_embeddings == 202


def test_padding_does_not_change_the_answer():
    net, x = stirred(small("hf_text")).eval(), inputs("hf_text")
    with torch.no_grad():
        torch.testing.assert_close(net(x[:1, :5]), net(x[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "model_type", "config"),
    [
        (hf_text, "distilbert", {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}),
        (hf_text, "roberta", {"hidden_size": 16, "num_hidden_layers": 1}),
        (hf_vision, "deit", TINY),
        (hf_vision, "resnet", {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}),
        (hf_vision, "convnext", {"hidden_sizes": [4, 8], "depths": [1, 1], "num_stages": 2}),
    ],
)
def test_other_architectures(make, model_type, config):
    model = make(**(TEXT if make is hf_text else IMAGE), model_type=model_type, config=config).eval()
    assert model.config.model_type == model_type
    x = inputs("hf_text" if make is hf_text else "hf_vision")
    assert model(x).logits.shape == (4, 10)


@pytest.mark.parametrize("name", ["hf_vision", "hf_text"])
def test_half_of_heads_and_neurons_can_be_removed(name):
    net, x = stirred(small(name)).eval(), inputs(name)
    groups = Groups(net, x[:2])
    assert groups.unhandled == {}
    attention = [group for group in groups if group.unit > 1]
    assert [(group.units, group.unit) for group in attention] == [(4, 4)]
    for group in list(groups):
        groups.remove(group, range(group.units // 2))
    sizes = {key: tuple(parameter.shape) for key, parameter in net.named_parameters()}
    first = "net.vit.layers.0." if name == "hf_vision" else "net.bert.encoder.layer.0."
    query = first + ("attention.q_proj.weight" if name == "hf_vision" else "attention.self.query.weight")
    inner = first + ("mlp.fc1.weight" if name == "hf_vision" else "intermediate.dense.weight")
    assert sizes[query] == (8, 8)
    assert sizes[inner] == (16, 8)
    assert net.net.classifier.out_features == 10
    assert torch.isfinite(net(x)).all() and net(x).shape == (4, 10)


def test_pretrained_folder_gives_the_same_outputs(text_folder):
    folder, model = text_folder
    again = hf_text(**TEXT, pretrained=str(folder))
    assert again.training and again.config._attn_implementation == "eager"
    x = inputs("hf_text")
    with torch.no_grad():
        assert torch.equal(again.eval()(x).logits, model(x).logits)


def test_pretrained_encoder_gets_a_new_last_layer_for_other_classes(text_folder, tmp_path, caplog):
    folder, model = text_folder
    other = hf_text(**{**TEXT, "num_classes": 3}, pretrained=str(folder))
    assert other.classifier.out_features == 3
    assert "classifier.bias, classifier.weight: new ones were made" in caplog.text
    model.bert.save_pretrained(tmp_path)  # an encoder alone
    bare = hf_text(**TEXT, pretrained=str(tmp_path))
    for one in (other, bare):
        for key, tensor in model.bert.state_dict().items():
            assert torch.equal(one.bert.state_dict()[key], tensor)


def test_grey_images_mean_to_a_colour_model_what_three_equal_channels_mean(tmp_path):
    colour = hf_vision(**{**IMAGE, "in_channels": 3}, config=TINY)
    colour.save_pretrained(tmp_path)
    grey, x = hf_vision(**IMAGE, pretrained=str(tmp_path)).eval(), inputs("hf_vision")
    with torch.no_grad():
        expected = colour.eval()(x.expand(-1, 3, -1, -1)).logits
        torch.testing.assert_close(grey(x).logits, expected, atol=1e-6, rtol=1e-5)
    with pytest.raises(RequestError, match="takes 3 channels, the images have 2"):
        hf_vision(**{**IMAGE, "in_channels": 2}, pretrained=str(tmp_path))
    with pytest.raises(RequestError, match=r"cannot take samples of shape \[1, 16, 16\].*doesn't match model \(8\*8\)"):
        hf_vision(**{**IMAGE, "image_size": 16}, pretrained=str(tmp_path))


def test_a_smaller_vocabulary_than_the_datas_is_refused(text_folder):
    with pytest.raises(RequestError, match="knows 40 tokens, the data's tokenizer has 41"):
        hf_text(**{**TEXT, "vocab_size": 41}, pretrained=str(text_folder[0]))


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_folder_with_code_in_its_weights_runs_nothing(text_folder, tmp_path):
    folder, model = text_folder
    model.config.save_pretrained(tmp_path)
    sprung = tmp_path / "sprung"
    for payload in (pickle.dumps(Trap(str(sprung))), None):
        if payload is None:
            torch.save({"bert.embeddings.word_embeddings.weight": Trap(str(sprung))}, tmp_path / "pytorch_model.bin")
        else:
            (tmp_path / "pytorch_model.bin").write_bytes(payload)
        with pytest.raises(RequestError, match="pretrained: cannot load"):
            hf_text(**TEXT, pretrained=str(tmp_path))
        assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(str(sprung)))).close()
    assert sprung.exists()  # the trap works where it is let


def test_a_folder_of_another_architecture_is_refused(text_folder, tmp_path):
    folder, model = text_folder
    hf_vision(**IMAGE, config=TINY).save_pretrained(tmp_path)
    with pytest.raises(RequestError, match="pretrained: cannot load"):
        hf_text(**TEXT, pretrained=str(tmp_path))
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(RequestError, match=r"lacks 21 fitting tensors of BertForSequenceClassification: bert\."):
        hf_text(**TEXT, pretrained=str(tmp_path))


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (hf_vision, {"model_type": "vitt"}, "model_type: got 'vitt', expected one of .*did you mean vit"),
        (hf_vision, {"model_type": "bert"}, "model_type: got 'bert'"),
        (hf_vision, {"config": {"hiden_size": 8}}, "config.hiden_size: .*did you mean hidden_size"),
        (hf_vision, {"config": {"patch_size": 16}}, "vit cannot take samples of shape"),
        (hf_vision, {"pretrained": "nowhere/at-all"}, "pretrained: got 'nowhere/at-all', expected a local folder"),
        (hf_vision, {"pretrained": "x", "config": {"a": 1}}, "config: got settings beside pretrained"),
        (hf_text, {"pooling": "max"}, "pooling: got 'max', expected one of own, mean"),
        (hf_text, {"vocab_size": 0}, "vocab_size: got 0, expected a number of at least 1"),
        (hf_text, {"config": {"hidden_size": 30}}, "config: transformers refuses it for bert: The hidden size"),
    ],
)
def test_wrong_arguments(make, arguments, message):
    with pytest.raises(RequestError, match=message):
        make(**{**(TEXT if make is hf_text else IMAGE), **arguments})


def test_the_data_win_over_the_configuration():
    arguments = {**ARGUMENTS["hf_vision"], "config": {**TINY, "num_channels": 3, "image_size": 99}}
    assert hf_vision(**arguments).config.num_channels == 1


def sentence_folder(folder, model, **pooling):
    """A folder as sentence-transformers writes it: the encoder, and what is made of its tokens."""
    model.bert.save_pretrained(folder)
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_a_sentence_encoder_is_pooled_as_it_was_trained(text_folder, tmp_path):
    model = text_folder[1]
    folder = sentence_folder(tmp_path, model, pooling_mode_cls_token=False, pooling_mode_mean_tokens=True)
    net = Network(hf_text(**{**TEXT, "num_classes": 3}, pretrained=str(folder)), pad_id=0).eval()
    x = inputs("hf_text")
    mask = (x != 0).float()
    with torch.no_grad():
        tokens = model.bert(x, attention_mask=mask.long()).last_hidden_state
        mean = torch.stack([row[: int(count)].mean(0) for row, count in zip(tokens, mask.sum(1), strict=True)])
        torch.testing.assert_close(net(x), net.net.classifier(mean), atol=1e-6, rtol=1e-5)
    assert not [name for name, _ in net.named_parameters() if "pooler" in name]
    own = hf_text(**{**TEXT, "num_classes": 3}, pretrained=str(folder), pooling="own")
    assert own.bert.pooler is not None
    first = sentence_folder(tmp_path / "first", model, pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    assert hf_text(**TEXT, pretrained=str(first)).bert.pooler is not None


def test_a_mean_pooled_classifier_learns_exports_and_loses_heads(tmp_path):
    net, x = stirred(small("hf_text", pooling="mean")), inputs("hf_text")
    net(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())
    groups = Groups(net.eval(), x[:2])
    assert groups.unhandled == {}
    for group in list(groups):
        groups.remove(group, range(group.units // 2))
    assert net.net.bert.encoder.layer[0].attention.self.query.weight.shape == (8, 8)
    file = export_onnx(net, x[:3], tmp_path / "model.onnx")
    answers = InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(answers), net(x).detach(), atol=1e-5, rtol=1e-4)


def test_pretrained_may_be_an_installed_package_which_is_not_imported(text_folder, tmp_path, monkeypatch):
    package = tmp_path / "some_encoder"
    shutil.copytree(text_folder[0], package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert pretrained_folder("some_encoder") == str(package / "model")
    net, x = hf_text(**TEXT, pretrained="some_encoder"), inputs("hf_text")
    with torch.no_grad():
        assert torch.equal(net.eval()(x).logits, text_folder[1](x).logits)
    with pytest.raises(RequestError, match=r"got 'no_such_encoder', expected a local folder .*or an installed package"):
        hf_text(**TEXT, pretrained="no_such_encoder")


def test_token_ids_of_another_tokenizer_are_refused(text_folder, tmp_path):
    shutil.copytree(text_folder[0], tmp_path / "model")
    words = {f"w{i}": i for i in range(TOKENS)}
    Tokenizer(WordLevel(words, "w0")).save(str(tmp_path / "model" / "tokenizer.json"))
    folder = str(tmp_path / "model")
    assert hf_text(**TEXT, pretrained=folder).config.vocab_size == TOKENS
    with pytest.raises(RequestError, match="tokenizer has 40 tokens, the data's 30; set dataset.tokenizer to the same"):
        hf_text(**{**TEXT, "vocab_size": 30}, pretrained=folder)
