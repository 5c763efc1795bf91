"""Weights and state from disk: honest files load, hostile ones run nothing and give one clear line."""

import collections
import io
import os
import pickle
import random
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from bigopt.store import inside, load_state, load_tensors, load_weights, save_state, save_tensors
from bigopt.vocabulary.errors import RequestError


class Evil:
    """Touches the canary when it is unpickled."""

    def __init__(self, canary: Path, how: str) -> None:
        self.canary, self.how = str(canary), how

    def __reduce__(self):
        if self.how == "system":
            return os.system, (f"touch {self.canary}",)
        if self.how == "eval":
            return eval, (f"open({self.canary!r}, 'w')",)
        return open, (self.canary, "w")


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def one_line(error: pytest.ExceptionInfo[RequestError], path: Path) -> str:
    assert len(error.value.problems) == 1
    message = error.value.problems[0]
    assert "\n" not in message and str(path) in message and len(message) < 400 + len(str(path))
    return message


def repacked(source: Path, target: Path, change, compression: int = zipfile.ZIP_STORED) -> Path:
    """The same zip with entries changed by ``change(name, content) -> (name, content) or None``."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            pair = change(entry.filename, old.read(entry))
            if pair is not None:
                new.writestr(*pair)
    return target


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
def test_honest_state_dicts_load_bit_for_bit(tmp_path, net, wrapper):
    expected = net.state_dict()
    torch.save(expected if wrapper is None else {wrapper: expected, "epoch": 3}, tmp_path / "w.pt")
    loaded = load_weights(tmp_path / "w.pt")
    assert list(loaded) == list(expected)
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_safetensors_round_trip_with_tied_sliced_and_strange_tensors(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base,
        "tied": base,
        "transposed": base.T,
        "row": base[1],
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 2),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "flag": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.ones(1)),
    }
    save_tensors(tmp_path / "w.safetensors", tensors, {"note": "x"})
    for load in (load_tensors, load_weights):
        loaded = load(tmp_path / "w.safetensors")
        assert set(loaded) == set(tensors)
        assert all(torch.equal(loaded[n], t) and loaded[n].dtype == t.dtype for n, t in tensors.items())
    with pytest.raises(TypeError, match="sparse: expected a dense tensor"):
        save_tensors(tmp_path / "w.safetensors", {"sparse": torch.eye(2).to_sparse()})
    assert set(load_tensors(tmp_path / "w.safetensors")) == set(tensors)


@pytest.mark.parametrize("how", ["system", "eval", "open"])
@pytest.mark.parametrize("form", ["zip", "nested", "legacy", "pickle", "protocol 0", "module", "tar", "as safetensors"])
def test_code_in_a_weight_file_never_runs(tmp_path, net, monkeypatch, how, form):
    canary, path = tmp_path / "canary", tmp_path / "w.pt"
    evil = Evil(canary, how)
    if form == "zip":
        torch.save(evil, path)
    elif form == "nested":
        torch.save({"state_dict": {"w": torch.ones(1), "x": [{1: evil}]}}, path)
    elif form == "legacy":
        torch.save({"w": evil}, path, _use_new_zipfile_serialization=False)
    elif form == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif form == "protocol 0":
        path.write_bytes(pickle.dumps(evil, protocol=0))
    elif form == "module":
        net.evil = evil
        torch.save(net, path)
    elif form == "tar":
        with tarfile.open(path, "w") as tar:
            info = tarfile.TarInfo("../canary")
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
            content = pickle.dumps(evil)
            info = tarfile.TarInfo("pickle")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    else:
        path = tmp_path / "w.safetensors"
        path.write_bytes(b"\x00" * 8 + b"{" + pickle.dumps(evil))
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # somebody's shell must not open the door
    with pytest.raises(RequestError) as error:
        load_weights(path)
    one_line(error, path)
    assert not canary.exists()
    if form not in ("tar", "as safetensors"):  # the corpus is live: an unsafe loader does run it
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pickle.loads(pickle.dumps(evil))
        assert canary.exists()


def test_truncated_weights_are_refused_at_every_length(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    save_tensors(tmp_path / "w.safetensors", net.state_dict())
    for name in ("w.pt", "w.safetensors"):
        content = (tmp_path / name).read_bytes()
        cut = tmp_path / f"cut-{name}"
        for length in [*range(0, len(content), max(1, len(content) // 60)), len(content) - 1]:
            cut.write_bytes(content[:length])
            with pytest.raises(RequestError) as error:
                load_weights(cut)
            one_line(error, cut)


def test_bombs_are_refused_before_they_unpack(tmp_path, net):
    torch.save({"w": torch.zeros(1_000_000)}, tmp_path / "w.pt")
    bomb = repacked(tmp_path / "w.pt", tmp_path / "bomb.pt", lambda *pair: pair, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 20_000
    with pytest.raises(RequestError, match="unpacks to 40") as error:
        load_weights(bomb)
    one_line(error, bomb)
    with pytest.raises(RequestError, match="more than the limit of 1000"):
        load_weights(tmp_path / "w.pt", limit=1000)
    torch.save({"w": torch.zeros(1).expand(10**12)}, tmp_path / "wide.pt")  # 4 TB of one stored zero
    with pytest.raises(RequestError, match="not a plain tensor that fits"):
        load_weights(tmp_path / "wide.pt")
    with open(tmp_path / "header.safetensors", "wb") as file:
        file.write((2**62).to_bytes(8, "little") + b"{" + b" " * 100)
    with pytest.raises(RequestError, match="not an intact safetensors"):
        load_weights(tmp_path / "header.safetensors")


def test_forged_storage_sizes_are_refused(tmp_path):
    torch.save({"w": torch.ones(64)}, tmp_path / "w.pt")
    short = repacked(
        tmp_path / "w.pt", tmp_path / "short.pt", lambda name, c: (name, c[:4] if name.endswith("data/0") else c)
    )
    with pytest.raises(RequestError) as error:
        load_weights(short)
    one_line(error, short)


def test_entries_that_lead_out_are_refused(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "w.pt")
    for name in ("../../canary", "/tmp/canary"):
        path = repacked(tmp_path / "w.pt", tmp_path / "bad.pt", lambda n, c, name=name: (n, c))
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(name, b"x")
        with pytest.raises(RequestError, match="leads out of the archive") as error:
            load_weights(path)
        one_line(error, path)
    assert not (tmp_path.parent / "canary").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.ones(2), "expected a state dict, got Tensor"),
        ([torch.ones(2)], "expected a state dict, got list"),
        ({}, "expected a state dict"),
        ({"epoch": 3}, "'epoch': int"),
        ({3: torch.ones(1)}, "3: Tensor"),
        ({"w": torch.eye(2).to_sparse()}, "not a plain tensor"),
        (collections.Counter("a"), "'a': int"),
    ],
)
def test_wrong_content_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(RequestError, match=message) as error:
        load_weights(tmp_path / "w.pt")
    one_line(error, tmp_path / "w.pt")


def test_wrong_files_are_named(tmp_path):
    (tmp_path / "text").write_text("hello, this is no weight file")
    (tmp_path / "empty").touch()
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    for name, message in [
        ("text", "neither safetensors"),
        ("empty", "neither safetensors"),
        ("other.zip", "refused"),
        ("", "a folder"),
        ("missing", "no such file"),
    ]:
        with pytest.raises(RequestError, match=message) as error:
            load_weights(tmp_path / name)
        one_line(error, tmp_path / name)


def optimizer_state() -> dict:
    net = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.8, 0.9))
    net(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def test_optimizer_and_random_state_survive(tmp_path):
    tree = {
        "optimizer": optimizer_state(),
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "generator": numpy.random.default_rng(1).bit_generator.state,
    }
    save_state(tmp_path / "state", tree)
    loaded = load_state(tmp_path / "state")
    assert loaded["optimizer"]["param_groups"] == tree["optimizer"]["param_groups"]
    assert set(loaded["optimizer"]["state"]) == {0, 1}
    moments = [
        (tree["optimizer"]["state"][i][k], loaded["optimizer"]["state"][i][k])
        for i in (0, 1)
        for k in ("step", "exp_avg")
    ]
    assert all(torch.equal(a, b) for a, b in moments)
    assert loaded["python"] == tree["python"] and loaded["generator"] == tree["generator"]
    expected = [random.random(), numpy.random.rand(), torch.rand(1)]
    random.setstate(loaded["python"])
    numpy.random.set_state(loaded["numpy"])
    torch.set_rng_state(loaded["torch"])
    assert [random.random(), numpy.random.rand(), torch.rand(1)] == expected
    net = nn.Linear(3, 2)
    torch.optim.AdamW(net.parameters()).load_state_dict(loaded["optimizer"])


def test_plain_types_survive_exactly(tmp_path):
    tree = {
        1: (1, [2.5, (None, True)], {}),
        "1": float("inf"),
        (2, "a"): b"\x00\xff",
        None: "ä\n",
        "big": [-(2**70), True],
        2.5: (),
    }
    save_state(tmp_path / "state", tree)
    loaded = load_state(tmp_path / "state")
    assert loaded == tree and list(loaded) == list(tree)
    assert repr(loaded) == repr(tree)  # types too
    save_state(tmp_path / "state", [float("nan"), numpy.float32(0.5), numpy.zeros((0, 3)), numpy.eye(2, dtype="<i2")])
    nan, half, empty, eye = load_state(tmp_path / "state")
    assert nan != nan and half == 0.5 and empty.shape == (0, 3)
    assert eye.dtype == numpy.int16 and eye.tolist() == [[1, 0], [0, 1]] and eye.flags.writeable


def test_state_refuses_what_it_cannot_keep_and_says_where(tmp_path):
    save_state(tmp_path / "state", 1)
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\]: cannot save a Linear"):
        save_state(tmp_path / "state", {"a": [0, nn.Linear(1, 1)]})
    assert load_state(tmp_path / "state") == 1
    save_tensors(tmp_path / "other", {"a": torch.ones(1)})
    with pytest.raises(RequestError, match="no state that bigopt saved"):
        load_state(tmp_path / "other")
    save_tensors(tmp_path / "other", {}, {"format": "bigopt-state-1", "tree": '["exec", "x"]'})
    with pytest.raises(RequestError, match="damaged state"):
        load_state(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        load_state(tmp_path / "missing")


def test_inside(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    assert inside(tmp_path / "root", "a/../b") == tmp_path.resolve() / "root" / "b"
    assert inside(tmp_path / "root", tmp_path / "root") == tmp_path.resolve() / "root"
    for path in ("..", "../root2", "/etc/passwd", "link/x", "a/../../x", "a\0b"):
        with pytest.raises(RequestError) as error:
            inside(tmp_path / "root", path)
        assert len(error.value.problems) == 1
