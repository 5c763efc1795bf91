"""The stage cache: what hits, what misses, damage, and equal trainings at the same time."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_fakes import Memory, data, make_run, mlp, same, weights

from bigopt.store import Store, lock
from bigopt.train import Fitter, Signals
from bigopt.train.job import Job
from bigopt.train.key import code_digest, content_key, describe, describe_part
from bigopt.train.results import weights_of, write_result
from bigopt.vocabulary.errors import Interrupted
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer, Scheduler


class Strength(Part):
    def __init__(self, amount: float = 1.0, names: tuple[str, ...] = ()) -> None:
        self.amount = amount
        self.names = names


def job_of(run: Run, **changes: Any) -> Job:
    settings = {"epochs": 2, "lr": 0.1, "name": "a", "parts": [], "modules": {}, "seed": 0}
    return Job(run=run, **(settings | changes))


def trained(run: Run) -> int:
    assert isinstance(run.progress, Memory)
    return len(run.progress.epochs)


def test_a_hit_restores_weights_and_history_and_trains_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    first = make_run(tmp_path / "a", optimizer=Optimizer(lr=0.05))
    history = Fitter(first.folder, store)(first, name="baseline", share=True)
    after = torch.rand(3)
    second = make_run(tmp_path / "b", optimizer=Optimizer(lr=0.05))
    fit = Fitter(second.folder, store)
    known = fit(second, name="teacher", share=True)
    assert torch.equal(torch.rand(3), after)  # what comes next draws the same, trained or not
    assert known.cached and known.seconds == 0.0 and not history.cached
    assert known.epochs == history.epochs and known.best_epoch == history.best_epoch
    assert same(weights(first.model), weights(second.model))
    assert trained(second) == 0
    fit(second, 1, name="recover")
    assert second.progress.epochs[0][:2] == ("recover", 1)  # type: ignore[attr-defined]


def test_a_cached_result_is_kept_in_the_run_and_survives_the_cache(tmp_path: Path) -> None:
    import shutil

    for folder in ("a", "b"):
        run = make_run(tmp_path / folder)
        Fitter(run.folder, Store(tmp_path / "cache"))(run, share=True)
    shutil.rmtree(tmp_path / "cache")
    again = make_run(tmp_path / "b")
    history = Fitter(again.folder, Store(tmp_path / "cache"))(again, share=True)
    assert history.cached and trained(again) == 0


def test_without_share_nothing_is_shared(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        run = make_run(tmp_path / folder)
        Fitter(run.folder, Store(tmp_path / "cache"))(run)
        assert trained(run) == 2
    assert not (tmp_path / "cache").exists()


def test_a_flipped_byte_is_found_and_the_entry_rebuilt(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run = make_run(tmp_path / "a")
    Fitter(run.folder, Store(cache))(run, share=True)
    (file,) = cache.glob("??/*/weights.safetensors")
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes(content)
    for folder, epochs in (("b", 2), ("c", 0)):
        again = make_run(tmp_path / folder)
        Fitter(again.folder, Store(cache))(again, share=True)
        assert trained(again) == epochs
        assert same(weights(again.model), weights(run.model))


def test_the_key_holds_everything_that_matters(tmp_path: Path) -> None:
    def run(**settings: Any) -> Run:
        return make_run(tmp_path, **settings)

    other_net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))
    other_net.load_state_dict(mlp().state_dict())
    other_data = replace(data(), fingerprint="0" * 64)
    base = make_run(tmp_path)
    keys = [
        content_key(job_of(base), 0),
        content_key(job_of(base), 1),
        content_key(job_of(base, epochs=3), 0),
        content_key(job_of(base, lr=0.2), 0),
        content_key(job_of(base, parts=[Strength()]), 0),
        content_key(job_of(base, parts=[Strength(2.0)]), 0),
        content_key(job_of(base, modules={"0.net": nn.Linear(2, 2)}), 0),
        content_key(job_of(run(model=mlp(1))), 0),
        content_key(job_of(run(model=other_net)), 0),  # same weights, another activation
        content_key(job_of(run(dataset=other_data)), 0),
        content_key(job_of(run(optimizer=Optimizer("sgd"))), 0),
        content_key(job_of(run(scheduler=Scheduler("linear"))), 0),
        content_key(job_of(run(monitor=Monitor("val/loss", "min"))), 0),
        content_key(job_of(run(seed=1)), 0),
        content_key(job_of(run(batch_size=8)), 0),
        content_key(job_of(run(ema=0.9)), 0),
        content_key(job_of(run(label_smoothing=0.1)), 0),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)
    same_results = [
        content_key(job_of(make_run(tmp_path / "elsewhere")), 0),
        content_key(job_of(base, name="another name"), 0),
        content_key(job_of(run(checkpoint_seconds=1.0, threads=1, workers=0, eval_batch_size=7, max_epochs=9)), 0),
        content_key(job_of(run(optimizer=Optimizer(lr=0.7))), 0),  # the fit has its own rate
    ]
    assert set(same_results) == {keys[0]}
    may_read_it = content_key(job_of(run(optimizer=Optimizer(lr=0.7)), parts=[Strength()]), 0)
    assert may_read_it not in keys


def test_a_parts_key_follows_its_arguments_its_modules_and_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = Strength(names=("a", "b"))
    before = describe_part(part)
    part.cache = torch.rand(3)  # type: ignore[attr-defined]
    assert describe_part(part) == before  # what it caches while it trains is not what it is
    part.teacher = nn.Linear(2, 2)  # type: ignore[attr-defined]
    assert describe_part(part) != before
    module = tmp_path / "stranger.py"
    module.write_text("from bigopt.vocabulary.part import Part\nclass Mine(Part):\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import stranger  # type: ignore[import-not-found]

    digest = code_digest(stranger.Mine)
    module.write_text(module.read_text() + "# changed\n")
    assert code_digest(stranger.Mine) != digest


def test_descriptions_are_equal_for_equal_values() -> None:
    a = {"b": (1, 2.5), "a": {"x", "y"}, "path": Path("p"), "tensor": torch.ones(2), "kind": nn.Linear}
    b = {"kind": nn.Linear, "tensor": torch.ones(2), "path": Path("p"), "a": {"y", "x"}, "b": (1, 2.5)}
    assert describe(a) == describe(b)
    assert describe(torch.ones(2)) != describe(torch.ones(2, dtype=torch.float64))
    assert describe(Strength()) == describe(Strength()) != describe(Strength(0.5))


def test_equal_trainings_at_the_same_time_train_once(tmp_path: Path) -> None:
    """Another process holds the lock, is training, and finishes: its result is taken."""
    store = Store(tmp_path / "cache")
    first = make_run(tmp_path / "a")
    fit = Fitter(first.folder)
    history = fit(first)
    second = make_run(tmp_path / "b")
    key = content_key(job_of(second, lr=second.settings.optimizer.lr), 0)
    locked = threading.Event()

    def elsewhere() -> None:
        with lock(store.root / "locks" / f"fit-{key}"):
            locked.set()
            time.sleep(0.8)
            store.put(key, lambda to: write_result(to, key, weights_of(first.model, {}), history))

    other = threading.Thread(target=elsewhere)
    other.start()
    locked.wait()
    started = time.perf_counter()
    known = Fitter(second.folder, store)(second, share=True)
    other.join()
    assert known.cached and trained(second) == 0 and time.perf_counter() - started >= 0.7
    assert same(weights(second.model), weights(first.model))


def test_waiting_for_another_training_can_be_interrupted(tmp_path: Path) -> None:
    store, signals = Store(tmp_path / "cache"), Signals()
    run = make_run(tmp_path / "b")
    key = content_key(job_of(run, lr=run.settings.optimizer.lr), 0)
    with lock(store.root / "locks" / f"fit-{key}"):
        threading.Timer(0.2, lambda: signals.request(15)).start()
        with pytest.raises(Interrupted):
            Fitter(run.folder, store, signals)(run, share=True)


def test_a_cache_that_cannot_be_written_to_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "put", full)
    run = make_run(tmp_path / "a")
    history = Fitter(run.folder, Store(tmp_path / "cache"))(run, share=True)
    assert len(history.epochs) == 2
    assert any("not in the cache" in note and "No space left" in note for note in history.notes)
