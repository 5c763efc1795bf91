"""Every writer of the store behind one face: write version n, read back which version is there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigopt.store import (
    Generations,
    Journal,
    Store,
    load_state,
    load_tensors,
    read_json,
    save_state,
    save_tensors,
    verify,
    write_atomic,
    write_json,
    write_manifest,
)


@dataclass(frozen=True)
class Writer:
    """``write(folder, version, size)`` and ``read(folder) -> version`` (raises, or None, when nothing is complete)."""

    write: Callable[[Path, int, int], None]
    read: Callable[[Path], int | None]


def body(version: int, size: int) -> bytes:
    """Content that says its version and whether it is complete."""
    block = f"{version:08d}|".encode()
    content = block * (size // len(block) + 1)
    return content + hashlib.sha256(content).hexdigest().encode()


def version_of(content: bytes) -> int:
    assert hashlib.sha256(content[:-64]).hexdigest().encode() == content[-64:], "torn content"
    return int(content[:8])


def key(version: int) -> str:
    return hashlib.sha256(str(version).encode()).hexdigest()


def fill(version: int, size: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "weights").write_bytes(body(version, size))
        (folder / "sub" / "more").write_bytes(body(version, 100))

    return write


def read_entry(folder: Path) -> int:
    version = version_of((folder / "weights").read_bytes())
    assert version_of((folder / "sub" / "more").read_bytes()) == version
    return version


def newest_entry(folder: Path) -> int | None:
    """The last of the entries 1, 2, … of which none may be missing."""
    store = Store(folder / "store")
    last = None
    for version in range(10_000):
        path = store.get(key(version))
        if path is None:
            assert all(store.get(key(v)) is None for v in range(version + 1, version + 3))
            return last
        assert read_entry(path) == version
        last = version
    raise AssertionError("endless")


def newest_generation(folder: Path) -> int | None:
    path = Generations(folder / "generations").newest()
    return None if path is None else read_entry(path)


def write_manifested(folder: Path, version: int, size: int) -> None:
    target = folder / "manifested"
    target.mkdir(exist_ok=True)
    if not (target / "data").exists():
        (target / "data").write_bytes(body(7, 100))
    write_manifest(target, {"version": version, "filler": "x" * size})


def read_manifested(folder: Path) -> int:
    assert verify(folder / "manifested")
    return int(read_json(folder / "manifested" / "manifest.json")["extra"]["version"])


def read_journal(folder: Path) -> int | None:
    """Records are numbered without a gap."""
    versions = [record["version"] for record in Journal(folder / "journal.jsonl").read()]
    assert versions == list(range(len(versions)))
    return versions[-1] if versions else None


def write_tensors(folder: Path, version: int, size: int) -> None:
    import torch

    save_tensors(folder / "w.safetensors", {"v": torch.full((size,), version, dtype=torch.int32)})


def read_tensors(folder: Path) -> int:
    values = load_tensors(folder / "w.safetensors")["v"]
    assert len(values.unique()) == 1
    return int(values[0])


def write_state(folder: Path, version: int, size: int) -> None:
    import torch

    save_state(folder / "state", {version: (torch.full((size,), float(version)), "x")})


def read_state(folder: Path) -> int:
    ((version, (values, text)),) = load_state(folder / "state").items()
    assert text == "x" and len(values.unique()) == 1 and int(values[0]) == version
    return int(version)


def write_text_file(folder: Path, version: int, size: int) -> None:
    write_json(folder / "report.json", {"version": version, "body": body(version, size).decode()})


def read_text_file(folder: Path) -> int:
    report = read_json(folder / "report.json")
    assert version_of(report["body"].encode()) == report["version"]
    return int(report["version"])


WRITERS = {
    "bytes": Writer(
        lambda folder, version, size: write_atomic(folder / "file", body(version, size)) and None,
        lambda folder: version_of((folder / "file").read_bytes()),
    ),
    "callable": Writer(
        lambda folder, version, size: write_atomic(folder / "f", lambda p: p.write_bytes(body(version, size))) and None,
        lambda folder: version_of((folder / "f").read_bytes()),
    ),
    "json": Writer(write_text_file, read_text_file),
    "manifest": Writer(write_manifested, read_manifested),
    "store": Writer(
        lambda folder, version, size: Store(folder / "store").put(key(version), fill(version, size)) and None,
        newest_entry,
    ),
    "generations": Writer(
        lambda folder, version, size: Generations(folder / "generations").save(fill(version, size)) and None,
        newest_generation,
    ),
    "journal": Writer(
        lambda folder, version, size: Journal(folder / "journal.jsonl").append(
            {"version": version, "filler": "x" * size}
        ),
        read_journal,
    ),
    "tensors": Writer(write_tensors, read_tensors),
    "state": Writer(write_state, read_state),
}
