"""Full disk, size limit, unwritable folder at each writer: an error, the old file intact, never a silent success."""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from store_writers import WRITERS, Writer

from bigopt.store import Generations, Store, atomic, read_json, reap, write_atomic, write_json

SMALL, LARGE = 2_000, 400_000
DISK = 300 * 1024
NOBODY = 65534


@pytest.fixture
def tiny_disk(tmp_path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a tiny file system needs root; the size limit is tested instead")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def size_limit(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond ``limit`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write everywhere, so be somebody else."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder of the unprivileged user, which it can reach."""
    folder = Path(tempfile.mkdtemp()).resolve()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o777)
    shutil.rmtree(folder)


def assert_refused(writer: Writer, folder: Path, size: int = LARGE) -> None:
    with pytest.raises(OSError):
        writer.write(folder, 1, size)
    assert writer.read(folder) == 0
    assert not [path for path in folder.rglob("*") if atomic.is_temporary(path)]


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_full_disk(name, tiny_disk):
    writer = WRITERS[name]
    writer.write(tiny_disk, 0, SMALL)
    assert_refused(writer, tiny_disk)
    writer.write(tiny_disk, 1, SMALL)  # and it goes on when there is room again
    assert writer.read(tiny_disk) == 1


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_size_limit(name, tmp_path):
    writer = WRITERS[name]
    writer.write(tmp_path, 0, SMALL)
    with size_limit(DISK):
        assert_refused(writer, tmp_path)
    writer.write(tmp_path, 1, SMALL)
    assert writer.read(tmp_path) == 1


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_unwritable_folder(name, public_folder, tmp_path):
    writer = WRITERS[name]
    writer.write(tmp_path, 0, SMALL)  # imports what it needs while it may read everything
    with unprivileged():
        writer.write(public_folder, 0, SMALL)
        for path in [public_folder, *public_folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        assert_refused(writer, public_folder, SMALL)


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(OSError):
        write_atomic(tmp_path / "file" / "new", b"x")
    assert (tmp_path / "file").read_text() == "old"


def test_a_function_that_writes_nothing_is_an_error(tmp_path):
    write_atomic(tmp_path / "f", b"old")
    with pytest.raises(OSError, match="nothing was written"):
        write_atomic(tmp_path / "f", lambda path: None)
    assert (tmp_path / "f").read_bytes() == b"old"


@pytest.mark.parametrize("error", [ValueError("half"), KeyboardInterrupt()])
def test_a_function_that_fails_half_way(tmp_path, error):
    def half(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    write_atomic(tmp_path / "f.bin", b"old")
    with pytest.raises(type(error)):
        write_atomic(tmp_path / "f.bin", half)
    with pytest.raises(type(error)):
        Store(tmp_path / "store").put("a" * 64, lambda folder: half(folder / "f.bin"))
    with pytest.raises(type(error)):
        Generations(tmp_path / "generations").save(lambda folder: half(folder / "f.bin"))
    assert (tmp_path / "f.bin").read_bytes() == b"old"
    assert Store(tmp_path / "store").get("a" * 64) is None
    assert Generations(tmp_path / "generations").newest() is None
    assert not [path for path in tmp_path.rglob("*") if atomic.is_temporary(path)]


def test_temporary_keeps_the_ending_and_long_names_fit(tmp_path):
    seen: list[Path] = []

    def write(path: Path) -> None:
        seen.append(path)
        path.write_bytes(b"x")

    name = "ü" * 120 + ".onnx"
    write_atomic(tmp_path / name, write)
    assert seen[0].suffix == ".onnx" and seen[0].parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_reap_spares_the_living(tmp_path):
    mine = atomic.temporary_for(tmp_path / "mine.bin")
    mine.write_bytes(b"x")
    owner = atomic.me()
    reused = mine.with_name(mine.name.replace(str(owner), str(type(owner)(owner.host, owner.boot, owner.pid, 1))))
    booted = mine.with_name(mine.name.replace(str(owner), str(type(owner)(owner.host, "0" * 10, owner.pid, 1))))
    foreign = mine.with_name(mine.name.replace(owner.host, "f" * 10))
    foreign_old = mine.with_name("." + foreign.name)
    for path in (reused, booted, foreign, foreign_old):
        path.write_bytes(b"x")
    os.utime(foreign_old, (1, 1))
    (tmp_path / "kept.bin").write_bytes(b"x")
    assert set(reap(tmp_path)) == {reused, booted, foreign_old}
    assert {path.name for path in tmp_path.iterdir()} == {mine.name, foreign.name, "kept.bin"}


def test_json_turns_what_is_not_finite_into_null(tmp_path):
    import numpy

    value = {"a": float("nan"), 1: [float("inf"), numpy.float32(0.5), numpy.arange(2)], "p": Path("x"), "s": {2, 1}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == {"a": None, "1": [None, 0.5, [0, 1]], "p": "x", "s": [1, 2]}
    with pytest.raises(TypeError, match="object"):
        write_json(tmp_path / "v.json", {"a": object()})
    assert read_json(tmp_path / "v.json")["p"] == "x"
