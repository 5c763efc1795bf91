"""From names in a configuration to models, datasets and Parts."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from bigopt import registry
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network

MOST_KEPT = 2
_KEPT: dict[str, Data] = {}
"""The last datasets that were to be kept (a task's and its source's), untouched, by what they were built from."""


class Builder:
    """Builds further models and datasets by name, as the configuration would.

    Args:
        seed: what datasets are split by and models initialised by.
        tracking_uri: where weights named ``runs:/…`` or ``models:/…`` are looked up; None takes the default store.
        note: told in one line what weights were loaded.
        keep: keep the last datasets in memory for the next builder of this process that wants the same: the trials of
            a search, during which files are taken not to change.
    """

    def __init__(
        self,
        seed: int,
        tracking_uri: str | None = None,
        note: Callable[[str], None] = lambda _text: None,
        keep: bool = False,
    ) -> None:
        self.seed = seed
        self.tracking_uri = tracking_uri
        self.note = note
        self.keep = keep

    def dataset(self, spec: Mapping[str, Any] | str, path: str = "dataset") -> Data:
        """A checked dataset.

        Args:
            spec: a plugin's name, a mapping with ``name`` and arguments, or a run folder: the data of that run.
            path: what the configuration calls this dataset, for messages.

        Raises:
            RequestError: unknown plugin, wrong arguments, or data that cannot be used.
        """
        from bigopt.data import check_data

        seed = self.seed
        if isinstance(spec, str) and not spec.isidentifier():
            spec, seed = _dataset_of(Path(spec), path)
        name, arguments = _named(spec, path)
        key = json.dumps([name, arguments, seed], sort_keys=True, default=str)
        if self.keep and key in _KEPT:
            return copy.copy(_KEPT[key])
        data: Data = registry.build("datasets", name, arguments, {"seed": seed}, path=path)
        check_data(data)
        if self.keep:
            while len(_KEPT) >= MOST_KEPT:
                del _KEPT[next(iter(_KEPT))]
            _KEPT[key] = copy.copy(data)
        return data

    def model(
        self, spec: Mapping[str, Any] | str, data: Data, path: str = "model", *, new_head: bool = False
    ) -> nn.Module:
        """A network for this data, with the weights that the specification names.

        Args:
            spec: a model plugin's name, a mapping with ``name``, arguments and ``weights``, or a run folder.
            data: gives channels, size, classes and normalisation.
            path: what the configuration calls this model, for messages.
            new_head: where weights are for other classes, take all but their last layer.

        Raises:
            RequestError: unknown plugin, wrong arguments, data of another kind, or weights that do not fit.
        """
        from bigopt.data import check_kind

        if isinstance(spec, str) and not spec.isidentifier():
            return self._from_folder(Path(spec), data, path, new_head)
        name, arguments = _named(spec, path)
        weights = arguments.pop("weights", None)
        factory = registry.load("models", name)
        check_kind(data.schema, tuple(getattr(factory, "kinds", ())) or ("image", "tabular", "text"), name)
        _seed(self.seed)
        net = registry.build("models", name, arguments, data.schema.model_arguments(), path=path)
        network = Network.for_data(net, data)
        if weights:
            from bigopt.pipeline.weights import load_into

            self.note(
                load_into(
                    network,
                    weights,
                    build=lambda changed: self.model({**changed, "weights": None}, data, path),
                    tracking_uri=self.tracking_uri,
                    allow_new_head=new_head,
                )
            )
        return network

    def fetch(self, uri: str, into: Path, *, onnx: bool = False) -> Path:
        """Files of the tracking store: a model's weights, with their structure if they have one, or its ONNX file.

        Args:
            uri: ``runs:/…`` or ``models:/…``.
            into: an existing folder for the files.
            onnx: whether the ONNX file is wanted.

        Returns:
            a file, or a folder with ``structure.json``.

        Raises:
            RequestError: no such store, run or model, or nothing of that kind there.
        """
        if onnx:
            from bigopt.tracking.fetch import fetch_onnx

            return fetch_onnx(uri, into, self.tracking_uri)
        from bigopt.pipeline.remote import fetch

        return fetch(uri, into, self.tracking_uri)

    def _from_folder(self, folder: Path, data: Data, path: str, new_head: bool) -> nn.Module:
        """The model that a run left in its folder, its structure replayed."""
        from bigopt.pipeline.structure import load_structure

        if not (folder / "structure.json").is_file():
            raise RequestError(f"{path}: got {str(folder)!r}, which holds no structure.json of a bigopt run")
        return load_structure(
            folder, lambda spec: self.model({**spec, "weights": None}, data, path), allow_new_head=new_head
        )


def fitting_data(data: Data, model_spec: Mapping[str, Any]) -> Data:
    """The data, images resized once where they are smaller than the model can take."""
    from bigopt.data import resize_for

    least = int(getattr(registry.load("models", str(model_spec["name"])), "min_size", 0))
    if data.schema.kind != "image" or least <= min(data.schema.shape[1:]):
        return data
    return resize_for(data, least)


def _named(spec: Mapping[str, Any] | str, path: str) -> tuple[str, dict[str, Any]]:
    if isinstance(spec, str):
        return spec, {}
    arguments = dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise RequestError(f"{path}.name: got {name!r}, expected a plugin's name")
    return name, arguments


def _dataset_of(folder: Path, path: str) -> tuple[dict[str, Any], int]:
    """What a run was given as its dataset, and its seed."""
    from bigopt.config.checked import Checked

    try:
        checked = Checked.load(folder)
    except RequestError as error:
        raise RequestError([f"{path}: {line.removeprefix('resume: ')}" for line in error.problems]) from error
    return checked.dataset, checked.seed


def _seed(seed: int) -> None:
    from bigopt.train import seed_all

    seed_all(seed, 0)
