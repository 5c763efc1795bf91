"""Augmentation changes images and nothing else."""

import pytest
import torch
from train.train_fakes import cnn, data, make_run

from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.recipe.augment import Augment


def test_crops_move_the_picture_within_the_padding_and_labels_stay(tmp_path):
    run = make_run(tmp_path, cnn(), data(image=True))
    part = Augment(crop=1, flip=False)
    part.prepare(run, None)
    x = torch.zeros(64, 1, 6, 6)
    x[:, :, 3, 3] = 1
    y = torch.arange(64) % 3
    batch = part.batch(run, Batch(x, y, torch.arange(64)))
    assert torch.equal(batch.y, y)
    spots = {tuple(spot) for spot in (batch.x[:, 0] > 0.5).nonzero()[:, 1:].tolist()}
    assert spots <= {(r, c) for r in (2, 3, 4) for c in (2, 3, 4)} and len(spots) >= 5


def test_flips_follow_the_dataset(tmp_path):
    run = make_run(tmp_path, cnn(), data(image=True))
    part = Augment(crop=0)
    part.prepare(run, None)
    batch = Batch(torch.rand(4, 1, 6, 6), None, torch.arange(4))
    assert part.batch(run, batch) is batch
    always = Augment(crop=0, flip=True)
    always.prepare(run, None)
    torch.manual_seed(0)
    x = torch.rand(200, 1, 6, 6)
    flipped = always.batch(run, Batch(x, None, torch.arange(200))).x
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(-1)).flatten(1).all(1)
    assert torch.all(same | mirrored) and 60 < int(mirrored.sum()) < 140


def test_other_data_pass_with_a_note(tmp_path):
    run = make_run(tmp_path, dataset=data())
    notes = []
    run.report.note = notes.append
    part = Augment()
    part.prepare(run, None)
    batch = Batch(torch.rand(4, 5), None, torch.arange(4))
    assert part.batch(run, batch) is batch
    assert notes == ["augment does nothing: fake holds tabular data, not images"]


@pytest.mark.parametrize("arguments", [{"crop": -1}, {"erase": 1.5}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        Augment(**arguments)
