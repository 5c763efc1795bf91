"""A run folder gives its dataset, its model, and its model under a new head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bigopt.config import check
from bigopt.pipeline.build import Builder
from bigopt.pipeline.structure import load_structure, save_structure
from bigopt.vocabulary.errors import RequestError

SPEC = {"name": "mlp", "hidden": [8]}


@pytest.fixture
def folder(tmp_path):
    checked = check({"model": SPEC, "dataset": {"name": "digits", "limit": 100}, "seed": 3})
    checked.save(tmp_path)
    builder = Builder(3)
    save_structure(builder.model(SPEC, builder.dataset(checked.dataset)), SPEC, [], tmp_path)
    return str(tmp_path)


def test_a_run_folder_gives_the_data_of_that_run(folder):
    data = Builder(0).dataset(folder)
    assert data.fingerprint == Builder(3).dataset({"name": "digits", "limit": 100}).fingerprint
    assert data.fingerprint != Builder(0).dataset({"name": "digits", "limit": 100}).fingerprint


def test_a_folder_without_a_configuration_is_one_clear_line(tmp_path):
    with pytest.raises(RequestError, match=r"^dataset: .*it holds no config\.yaml"):
        Builder(0).dataset(str(tmp_path))


def test_a_model_for_other_classes_gets_a_new_head_only_where_that_is_asked_for(folder):
    builder = Builder(0)
    data = builder.dataset(folder)
    other = replace(data, schema=replace(data.schema, num_classes=4, class_names=("a", "b", "c", "d")))
    with pytest.raises(RequestError, match="last layer net.head is for 10 outputs, the model's is for 4"):
        builder.model(folder, other)
    old = builder.model(folder, data)
    for spec in (folder, {**SPEC, "weights": folder}):
        new = builder.model(spec, other, new_head=True)
        assert new.net.head.weight.shape == (4, 8)
        assert torch.equal(new.net.body[0].weight, old.net.body[0].weight)


def test_changes_are_repeated_by_plugins_of_their_kind(folder, tmp_path):
    builder = Builder(0)
    data = builder.dataset(folder)
    model = builder.model(SPEC, data)
    model.net.head = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 10))
    change = {"op": "head", "plugin": "feature_extraction", "kind": "transfer", "at": "net.head", "sizes": [8, 5, 10]}
    save_structure(model, SPEC, [change], tmp_path / "new")
    rebuilt = load_structure(tmp_path / "new", lambda spec: builder.model(spec, data))
    x = data.val.take(torch.arange(5))
    assert torch.equal(rebuilt.eval()(x), model.eval()(x))
    save_structure(model, SPEC, [{**change, "kind": "datasets"}], tmp_path / "wrong")
    with pytest.raises(RequestError, match="names 'datasets', which is no kind of plugin that changes"):
        load_structure(tmp_path / "wrong", lambda spec: builder.model(spec, data))


def test_trials_of_a_search_share_the_data_in_memory():
    spec = {"name": "digits", "limit": 50}
    first = Builder(0, keep=True).dataset(spec)
    first.test = None
    again = Builder(0, keep=True).dataset(spec)
    assert again.train is first.train and again.test is not None
    assert Builder(0).dataset(spec).train is not first.train
    assert Builder(1, keep=True).dataset(spec).fingerprint != first.fingerprint
