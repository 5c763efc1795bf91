"""The IDX format of the MNIST family: a magic number, the sizes, then bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    import numpy as np

_GZIP = b"\x1f\x8b"
# Deflate cannot shrink anything further than this, so a header that claims more is wrong.
_BEST_RATIO = 1032
_PIECE = 1 << 22


def read_idx(path: Path, dimensions: int, key: str = "dataset.root") -> np.ndarray:
    """The array of unsigned bytes in an IDX file, raw or gzip.

    Nothing is allocated that the file's own size does not justify.

    Args:
        path: the file.
        dimensions: 3 for images, 1 for labels.
        key: the configuration's key, for messages.

    Raises:
        RequestError: the file cannot be read, has another format or is damaged; says where.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    return _parse(stream, size * _BEST_RATIO, dimensions, f"{key}: {path}")
            return _parse(raw, size, dimensions, f"{key}: {path}")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RequestError(f"{key}: {path}: damaged or truncated gzip file ({error})") from error
    except OSError as error:
        raise RequestError(f"{key}: {path}: cannot be read ({error.strerror or error})") from error


def _parse(stream: IO[bytes] | gzip.GzipFile, most: int, dimensions: int, where: str) -> np.ndarray:
    import numpy as np

    expected = bytes((0, 0, 8, dimensions))
    magic = stream.read(4)
    if len(magic) < 4:
        raise RequestError(f"{where}: truncated at offset {len(magic)}, within the magic number")
    if magic != expected:
        raise RequestError(
            f"{where}: not an IDX file of {dimensions}-dimensional bytes: magic number 0x{magic.hex()} at offset 0, "
            f"expected 0x{expected.hex()}"
        )
    header = stream.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise RequestError(f"{where}: truncated at offset {4 + len(header)}, within the sizes")
    shape = struct.unpack(f">{dimensions}I", header)
    start, count = 4 + len(header), 1
    for length in shape:
        count *= length
    claim = " × ".join(f"{length:,}" for length in shape)
    if start + count > most:
        raise RequestError(f"{where}: truncated: the header at offset 4 claims {claim} bytes, more than the file holds")
    content = _read(stream, count)
    if len(content) < count:
        raise RequestError(
            f"{where}: truncated at offset {start + len(content):,}: the header claims {claim} bytes, "
            f"{count - len(content):,} are missing"
        )
    if stream.read(1):
        raise RequestError(f"{where}: goes on after offset {start + count:,}, where the header's {claim} bytes end")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _read(stream: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """Up to ``count`` bytes, in pieces: memory grows with what is there, not with what a header claims."""
    content = bytearray()
    while len(content) < count:
        piece = stream.read(min(_PIECE, count - len(content)))
        if not piece:
            break
        content += piece
    return content
