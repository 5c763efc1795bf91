"""Entries, generations, manifests and locks: what is damaged is found, what races ends well."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from store_writers import body, fill, key, read_entry

from bigopt.store import Generations, Journal, Store, lock, machine_lock, read_manifest, verify, write_manifest

RACE = """
import os, sys, random, time
from pathlib import Path
from store_writers import fill, key, read_entry
from bigopt.store import Store

root, workers = Path(sys.argv[1]), int(sys.argv[2])
start = time.time() + 0.3
children = []
for worker in range(workers):
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(max(0, start - time.time()))
            store = Store(root)
            for version in range(20):
                path = store.get(key(version)) if worker % 2 else None
                path = path or store.put(key(version), fill(version, 50_000))
                assert read_entry(path) == version and store.get(key(version)) == path
            os._exit(0)
        finally:
            os._exit(1)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * workers
"""


def flip(path: Path, position: int = 10) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", [False, True])
def test_eight_writers_of_the_same_keys(tmp_path, damaged):
    if damaged:
        for version in range(20):
            path = Store(tmp_path).put(key(version), fill(version, 50_000))
            flip(path / "weights")
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), "8"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.returncode == 0, done.stderr
    assert [read_entry(Store(tmp_path).get(key(version))) for version in range(20)] == list(range(20))
    assert list((tmp_path / "unfinished").iterdir()) == []


@pytest.mark.parametrize("name", ["weights", "sub/more", "manifest.json"])
def test_every_flipped_byte_is_found_and_the_entry_rebuilt(tmp_path, name):
    store = Store(tmp_path)
    path = store.put(key(3), fill(3, 30))
    size = len((path / name).read_bytes())
    for position in range(0, size, max(1, size // 40)):
        flip(path / name, position)
        if name == "manifest.json" and read_manifest(path) is not None:
            continue  # a flipped space or line end changes nothing
        assert store.get(key(3)) is None
        assert not path.exists()
        assert read_entry(store.put(key(3), fill(3, 30))) == 3
        assert store.get(key(3)) == path


def test_a_shortened_and_a_missing_file_are_found(tmp_path):
    for damage in (lambda p: p.write_bytes(p.read_bytes()[:-1]), Path.unlink):
        store = Store(tmp_path)
        damage(store.put(key(1), fill(1, 300)) / "weights")
        assert store.get(key(1)) is None


def test_an_entry_without_manifest_or_under_another_key_does_not_exist(tmp_path):
    store = Store(tmp_path)
    (store.put(key(1), fill(1, 300)) / "manifest.json").unlink()
    assert store.get(key(1)) is None
    moved = tmp_path / key(2)[:2] / key(2)
    moved.parent.mkdir(exist_ok=True)
    store.put(key(1), fill(1, 300)).rename(moved)
    assert store.get(key(2)) is None


@pytest.mark.parametrize("wrong", ["abc", "../" + "a" * 61, "A" * 64, "a" * 63, ""])
def test_keys_are_whole_digests(tmp_path, wrong):
    with pytest.raises(ValueError, match="SHA-256"):
        Store(tmp_path).put(wrong, fill(0, 10))


def test_a_manifest_cannot_point_outside(tmp_path):
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "f").write_text("x")
    write_manifest(folder, {"a": 1})
    assert verify(folder) and read_manifest(folder)["extra"] == {"a": 1}
    from bigopt.store import manifest

    content = read_manifest(folder)
    content["files"]["../secret"] = content["files"]["f"]
    (folder / "manifest.json").write_text(json.dumps(content | {"sha256": manifest._digest(content)}))
    assert read_manifest(folder) is not None and not verify(folder)


def test_generations_keep_two_and_fall_back(tmp_path):
    generations = Generations(tmp_path)
    assert generations.newest() is None
    for version in range(5):
        generations.save(fill(version, 300))
    assert len([path for path in tmp_path.iterdir()]) == 2
    assert read_entry(generations.newest()) == 4
    flip(generations.newest() / "weights")
    assert read_entry(generations.newest()) == 3
    generations.save(fill(5, 300))
    generations.save(fill(6, 300))
    flip(generations.newest() / "manifest.json", 30)
    assert read_entry(Generations(tmp_path).newest()) == 5
    with pytest.raises(ValueError, match="keep"):
        Generations(tmp_path, keep=0)


def test_lock_keeps_others_out_and_names_what_is_held(tmp_path):
    order: list[str] = []

    def other() -> None:
        with pytest.raises(TimeoutError, match="thing.lock"):
            with lock(tmp_path / "thing", timeout=0.05):
                order.append("never")
        with lock(tmp_path / "thing"):
            order.append("other")

    with lock(tmp_path / "thing"):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]


HOLD = """
import sys, time
from bigopt.store import lock, machine_lock
with lock(sys.argv[1]), machine_lock("bigopt-test-" + sys.argv[2]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_locks_outlast_time_but_not_their_holder(tmp_path, monkeypatch):
    name = f"{os.getpid()}"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "x"), name], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    os.utime(tmp_path / "x.lock", (1, 1))  # looks as if held since 1970: no reason to take it away
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for held in (lock(tmp_path / "x", timeout=0.1), machine_lock(f"bigopt-test-{name}", timeout=0.1)):
        with pytest.raises(TimeoutError):
            held.__enter__()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with lock(tmp_path / "x", timeout=5), machine_lock(f"bigopt-test-{name}", timeout=5):
        pass


def test_journal_recovers_from_every_cut(tmp_path):
    whole = tmp_path / "whole"
    for version in range(3):
        Journal(whole).append({"version": version, "text": "ä\n"}, durable=True)
    content = whole.read_bytes()
    for cut in range(len(content) + 1):
        (tmp_path / "cut").write_bytes(content[:cut])
        complete = content[:cut].count(b"\n")
        journal = Journal(tmp_path / "cut")
        assert [record["version"] for record in journal.read()] == list(range(complete))
        journal.append({"version": complete})
        assert [record["version"] for record in journal.read()] == list(range(complete + 1))


def test_journal_appends_of_many_processes_are_all_there(tmp_path):
    script = "import sys; from bigopt.store import Journal; j = Journal(sys.argv[1]);"
    script += "[j.append({'who': sys.argv[2], 'n': n}, {'who': sys.argv[2], 'n': n}) for n in range(50)]"
    workers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "j"), str(w)]) for w in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    records = list(Journal(tmp_path / "j").read())
    assert len(records) == 400
    assert [r["n"] for r in records if r["who"] == "2"] == [n for n in range(50) for _ in range(2)]


def test_importing_the_store_imports_nothing_heavy():
    script = (
        "import sys, bigopt.store; print({'torch', 'numpy', 'filelock', 'psutil', 'safetensors'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "set()\n"


def test_body_of_the_tests_notices_torn_content():
    with pytest.raises(AssertionError):
        from store_writers import version_of

        version_of(body(1, 100)[:-1])
