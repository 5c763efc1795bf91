"""Augmentation changes samples, mixes labels with them, and does to each dataset what suits it."""

import copy
from dataclasses import replace

import pytest
import torch
from train.train_fakes import cnn, data, make_run

from bigopt.vocabulary.batch import Batch, Role
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.task import Task
from bigopt_plugins.recipe.augment._images import Changes, pipeline
from bigopt_plugins.recipe.augment._mixing import cutmix, mixup
from bigopt_plugins.recipe.augment._tokens import drop_tokens
from bigopt_plugins.recipe.augment.plugin import Augment


def run_on(tmp_path, **schema):
    dataset = data(image=True)
    dataset.schema = replace(dataset.schema, **schema)
    return make_run(tmp_path, cnn(), dataset)


def test_crops_move_the_picture_within_the_padding_and_labels_stay(tmp_path):
    run = run_on(tmp_path)
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
    run = run_on(tmp_path)
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


@pytest.mark.parametrize(
    ("size", "flips", "crop", "flip"), [(28, True, 3, True), (8, False, 1, False), (6, False, 1, False)], ids=str
)
def test_defaults_suit_the_dataset(size, flips, crop, flip):
    changes = Augment()._changes((1, size, size), flips)
    assert (changes.crop, changes.flip) == (crop, flip)


def test_scaling_keeps_the_centre_and_changes_the_size():
    torch.manual_seed(0)
    x = torch.zeros(100, 1, 16, 16)
    x[:, :, 4:12, 4:12] = 1
    scaled = pipeline(Changes(scale=0.25), (1, 16, 16))(x)
    areas = scaled.sum((1, 2, 3))
    assert areas.min() < 0.75 * 64 and areas.max() > 1.3 * 64
    assert 0.7**2 * 64 < areas.min() and areas.max() < 1.3**2 * 64
    rows = (scaled.sum((1, 3)) * torch.arange(16)).sum(1) / areas
    assert rows == pytest.approx(torch.full((100,), 7.5), abs=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_changes_grey_and_colour_images_within_their_range(channels):
    torch.manual_seed(0)
    x = torch.rand(8, channels, 8, 8)
    net = pipeline(Changes(randaugment=2), (channels, 8, 8))
    changed = [net(x) for _ in range(6)]
    assert all(y.shape == x.shape and y.min() >= 0 and y.max() <= 1 + 1e-6 for y in changed)
    assert sum(not torch.equal(y, x) for y in changed) >= 4


def test_erasing_empties_a_rectangle():
    torch.manual_seed(0)
    x = torch.ones(50, 1, 10, 10)
    holes = (pipeline(Changes(erase=1.0), (1, 10, 10))(x) == 0).sum((1, 2, 3))
    assert int((holes > 0).sum()) >= 45 and holes.max() <= 50


def drawn(run, part, index=(0, 3, 1)):
    """A batch of the run's own samples as the Part changes it."""
    rows = torch.tensor(index)
    return part.batch(run, Batch(run.data.train.take(rows), run.data.train.y[rows], rows).from_(run.data.train))


def test_copies_are_drawn_once_and_follow_from_the_seed(tmp_path):
    run = run_on(tmp_path, flips=True)
    parts = [Augment(copies=3), Augment(copies=3)]
    for part in parts:
        part.prepare(run, None)
        part.prepare(run, None)  # preparing again draws nothing new
        torch.rand(1)
    assert torch.equal(parts[0]._drawn.x, parts[1]._drawn.x)
    split = run.data.train
    originals = split.take(torch.arange(len(split)))
    assert not torch.equal(parts[0]._drawn.x[0].float() / 255, originals)
    for _ in range(20):
        batch = drawn(run, parts[0])
        source = batch.fixed()
        assert source.split is split and source.copies == 4
        held = parts[0]._drawn.x[source.copy - 1, batch.index].float() / 255
        assert torch.equal(batch.x, held) and source.copy.min() >= 1 and source.copy.max() <= 3
    assert copy.deepcopy(parts[0])._drawn is parts[0]._drawn


def test_copies_leave_rows_from_elsewhere_to_fresh_changes(tmp_path):
    run = run_on(tmp_path)
    part = Augment(copies=2, erase=1.0)
    part.prepare(run, None)
    rows = torch.arange(4)
    other = Batch(run.data.train.take(rows) * 0.5, None, torch.full((4,), -1))
    changed = part.batch(run, other)
    assert changed.fixed() is None and not torch.equal(changed.x, other.x)


def test_mixed_copies_are_of_no_source(tmp_path):
    run = run_on(tmp_path)
    part = Augment(copies=2, mixup=1.0)
    part.prepare(run, None)
    assert drawn(run, part).fixed() is None


def test_copies_need_data_in_memory(tmp_path):
    run = run_on(tmp_path)
    run.data.train.in_memory = False
    with pytest.raises(RequestError, match="augment.copies: needs data in memory"):
        Augment(copies=2).prepare(run, None)


def test_mixup_mixes_samples_and_labels_alike():
    torch.manual_seed(3)
    y = torch.arange(12) % 3
    x = torch.nn.functional.one_hot(y, 3).float()  # a sample that is its own label
    mixed = mixup(Batch(x, y, torch.arange(12)), 1.0, "classification", 3)
    assert mixed.x == pytest.approx(mixed.y, abs=1e-6)
    assert mixed.y.sum(1) == pytest.approx(torch.ones(12))
    assert not torch.equal(mixed.x, x) and torch.equal(mixed.index, torch.arange(12))
    loss = Task("classification", 3).loss(torch.zeros(12, 3), mixed.y)
    assert loss.item() == pytest.approx(torch.log(torch.tensor(3.0)).item())
    targets = torch.randn(12, 2)
    both = mixup(Batch(targets.clone(), targets, torch.arange(12)), 0.5, "regression", 2)
    assert both.x == pytest.approx(both.y, abs=1e-6)


def test_cutmix_weighs_labels_by_area():
    torch.manual_seed(1)
    y = torch.arange(8)
    x = y.float().reshape(8, 1, 1, 1).expand(8, 1, 10, 10).clone()
    shares = []
    for _ in range(20):
        mixed = cutmix(Batch(x, y, torch.arange(8)), 1.0, "classification", 8)
        own = (mixed.x == x).float().mean((1, 2, 3))
        assert mixed.y[torch.arange(8), y] == pytest.approx(own, abs=1e-6)
        shares.append(own.min().item())
    assert min(shares) < 0.5 < max(shares)


def test_only_labelled_rows_are_mixed():
    torch.manual_seed(0)
    role = torch.tensor([int(Role.LABELLED)] * 4 + [int(Role.UNLABELLED)] * 4)
    x = torch.randn(8, 5)
    y = torch.tensor([0, 1, 2, 0, -1, -1, -1, -1])
    mixed = mixup(Batch(x, y, torch.arange(8), role), 1.0, "classification", 3)
    assert torch.equal(mixed.x[4:], x[4:]) and not torch.equal(mixed.x[:4], x[:4])
    single = Batch(x[:1], y[:1], torch.arange(1))
    assert mixup(single, 1.0, "classification", 3) is single


def test_texts_lose_tokens_but_the_first(tmp_path):
    torch.manual_seed(0)
    x = torch.randint(5, 50, (200, 20))
    dropped = drop_tokens(x, 0.3, pad_id=0)
    gone = dropped != x
    assert torch.equal(dropped[:, 0], x[:, 0]) and torch.all(dropped[gone] == 0)
    assert gone[:, 1:].float().mean().item() == pytest.approx(0.3, abs=0.02)
    run = run_on(tmp_path)
    run.data.schema = Schema("classification", "text", (20,), 3, vocab_size=50, pad_id=7)
    part = Augment()
    part.prepare(run, None)
    changed = part.batch(run, Batch(x, None, torch.arange(200))).x
    assert (changed[:, 1:] == 7).float().mean().item() == pytest.approx(0.1 + 0.9 / 45, abs=0.02)


def test_other_data_pass_with_a_note_or_are_mixed(tmp_path):
    run = make_run(tmp_path, dataset=data())
    notes = []
    run.report.note = notes.append
    part = Augment()
    part.prepare(run, None)
    batch = Batch(torch.rand(4, 5), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    assert part.batch(run, batch) is batch
    assert notes == ["augment does nothing: fake holds tabular data; augment.mixup works for it"]
    part = Augment(mixup=0.4)
    part.prepare(run, None)
    assert part.batch(run, batch).y.shape == (4, 3)
    with pytest.raises(RequestError, match="augment.cutmix: cuts rectangles out of images"):
        Augment(cutmix=1.0).prepare(run, None)


@pytest.mark.parametrize(
    "arguments",
    [
        {"crop": -1},
        {"erase": 1.5},
        {"scale": 1.0},
        {"rotate": -1.0},
        {"shear": 200.0},
        {"randaugment": -1},
        {"magnitude": 31},
        {"mixup": -0.1},
        {"cutmix": -0.1},
        {"token_dropout": 1.0},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=f"augment.{next(iter(arguments))}: got"):
        Augment(**arguments)
