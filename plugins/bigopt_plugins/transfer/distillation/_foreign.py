"""Teachers that were made elsewhere: ONNX files, models of the tracking store, folders of transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.store import read_json
from bigopt.vocabulary.errors import BigoptError, RequestError
from bigopt.vocabulary.network import Network, Normalize
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._source import class_names

PLUGINS = {"image": ("hf_vision", "ForImageClassification"), "text": ("hf_text", "ForSequenceClassification")}
"""Model plugin and ending of the architecture's name by kind of data."""


class OnnxTeacher(nn.Module):
    """An ONNX file that answers through ONNX Runtime, on the CPU; it has no layers to learn from.

    Args:
        content: of the file.
        shown: what messages call it.

    Raises:
        RequestError: ONNX Runtime cannot load it.
    """

    digest: Tensor

    def __init__(self, content: bytes, shown: str) -> None:
        super().__init__()
        from bigopt.measure import Session

        try:
            self.session = Session(content, torch.get_num_threads())
        except BigoptError as error:
            raise RequestError(f"transfer.teacher: {shown}: {error}") from error
        # a fit's key follows from the buffers of what takes part in it
        self.register_buffer("digest", torch.tensor(list(hashlib.sha256(content).digest()), dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` or predictions ``(N, T)`` of raw inputs ``(N, …)``."""
        return self.session.run(x).to(x.device)


class Reordered(nn.Module):
    """A classifier whose classes stand in another order.

    Args:
        model: gives logits.
        order: the model's class of each class here.
    """

    order: Tensor

    def __init__(self, model: nn.Module, order: Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("order", order)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` in this side's order."""
        logits: Tensor = self.model(x)
        return logits[:, self.order]


def onnx_file(path: Path, shown: str = "") -> OnnxTeacher:
    """The teacher in an ONNX file.

    Raises:
        RequestError: no such file, or none that ONNX Runtime loads.
    """
    try:
        return OnnxTeacher(path.read_bytes(), shown or str(path))
    except OSError as error:
        raise RequestError(f"transfer.teacher: {shown or path}: {error.strerror or error}") from error


def tracked(run: Run, uri: str, layers: bool) -> nn.Module:
    """The teacher behind ``runs:/…`` or ``models:/…``: its ONNX flavour, or where layers are wanted its weights.

    No code that the store holds is run.

    Raises:
        RequestError: nothing there that can be loaded safely.
    """
    with TemporaryDirectory(prefix="bigopt-teacher-") as folder:
        if not layers:
            return onnx_file(run.build.fetch(uri, Path(folder), onnx=True), uri)
        found = run.build.fetch(uri, Path(folder))
        if not (found / "structure.json").is_file():
            raise RequestError(
                f"transfer.teacher: {uri} has no structure.json, so its layers cannot be had; distil its answers only, "
                "or name the teacher's model with weights"
            )
        return run.build.model(str(found), run.data)


def transformers_folder(run: Run, folder: Path, trained: bool) -> nn.Module:
    """The classifier in a folder that ``save_pretrained`` wrote, behind the normalisation that it was trained with.

    Args:
        run: gives the data.
        folder: with ``config.json``.
        trained: False if the teacher is trained further, so that a new last layer does no harm.

    Raises:
        RequestError: data of another kind, a folder without a classifier for these classes, or one that cannot be
            loaded safely.
    """
    schema = run.data.schema
    if schema.kind not in PLUGINS:
        raise RequestError(f"transfer.teacher: {folder} is for images or texts, the data are {schema.kind}")
    plugin, ending = PLUGINS[schema.kind]
    config = read_json(folder / "config.json")
    names = [str(name) for _, name in sorted(dict(config.get("id2label") or {}).items(), key=lambda i: int(i[0]))]
    architectures = [str(name) for name in config.get("architectures") or []]
    outputs = len(names) or int(config.get("num_labels", 2))
    if trained and not any(name.endswith(ending) for name in architectures):
        raise RequestError(
            f"transfer.teacher: {folder} holds {architectures}, expected a classifier (…{ending}); "
            "set transfer.teacher_epochs to train one from it"
        )
    if trained and outputs != schema.num_classes:
        raise RequestError(
            f"transfer.teacher: {folder} tells {outputs} classes apart, the data have {schema.num_classes}; "
            "set transfer.teacher_epochs to train it on them"
        )
    model = run.build.model({"name": plugin, "pretrained": str(folder)}, run.data)
    _normalise(model, folder, schema.shape)
    return _in_order(run, model, names) if trained else model


def _normalise(model: nn.Module, folder: Path, shape: tuple[int, ...]) -> None:
    """The folder's own normalisation of images, if it names one; grey images get the mean of its channels."""
    file = folder / "preprocessor_config.json"
    given: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    if not isinstance(model, Network) or not given.get("do_normalize", True):
        return
    mean, std = given.get("image_mean"), given.get("image_std")
    if mean is None or std is None:
        return
    mean, std = torch.tensor(mean), torch.tensor(std)
    if shape[0] == 1:
        mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
    model.normalize = Normalize(mean, std, spatial=True)


def _in_order(run: Run, model: nn.Module, names: list[str]) -> nn.Module:
    """The model with its classes in the data's order, where it names them."""
    own = [name.lower() for name in class_names(run.data)]
    theirs = [name.lower() for name in names]
    if own == theirs:
        return model
    if sorted(own) == sorted(theirs) and len(set(own)) == len(own):
        run.report.note("distillation: the teacher's classes were brought into the data's order, by name")
        return Reordered(model, torch.tensor([theirs.index(name) for name in own]))
    run.report.note(f"distillation: the teacher's classes {names} are taken in the order of the data's")
    return model
