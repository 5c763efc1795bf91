"""Single images from files, read safely."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
# Only these decoders are ever tried, whatever a file claims to be: others start programs or read further files.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MOST_PIXELS = 1 << 26
_GREY = frozenset({"1", "L", "I;16", "I", "LA"})


@dataclass(frozen=True)
class Look:
    """What an image's header says.

    Attributes:
        width: pixels.
        height: pixels.
        grey: whether it has a single channel.
    """

    width: int
    height: int
    grey: bool


def look(path: Path, key: str) -> Look:
    """What an image's header says, without decoding the image.

    Raises:
        RequestError: the file is no readable image, or claims more than 2²⁶ pixels (a decompression bomb).
    """
    with _opened(path, f"{key}: {path}") as image:
        return Look(*image.size, image.mode in _GREY)


def read_image(path: Path, size: int, channels: int, key: str) -> Tensor:
    """One image as uint8 ``(channels, size, size)``.

    An image of another size is scaled (bilinear, antialiased) until its shorter side fits, and its centre is cropped.

    Args:
        path: PNG, JPEG, BMP or WebP.
        size: height and width, pixels.
        channels: 1 (grey) or 3 (RGB).
        key: the configuration's key, for messages.

    Raises:
        RequestError: the file is no readable image, is damaged or too large.
    """
    return _decode(path, size, channels, f"{key}: {path}")


def decode_image(content: bytes, size: int, channels: int, where: str) -> Tensor:
    """The same from a file's content; ``where`` begins the messages."""
    return _decode(BytesIO(content), size, channels, where)


def _decode(source: Path | BytesIO, size: int, channels: int, where: str) -> Tensor:
    with _opened(source, where) as image:
        try:
            return _to_tensor(image, size, channels)
        except Exception as error:  # decoders raise anything on damaged files
            raise RequestError(f"{where}: damaged image ({_line(error)})") from error


def _to_tensor(image: Image.Image, size: int, channels: int) -> Tensor:
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    if image.mode.startswith("I"):  # 16-bit grey: converting to 8 bits would clip instead of scale
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def _opened(source: Path | BytesIO, where: str) -> Image.Image:
    from PIL import Image

    try:
        image = Image.open(source, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise RequestError(f"{where}: more than {MOST_PIXELS:,} pixels, refused") from error
    except Exception as error:  # decoders raise anything on damaged files
        raise RequestError(f"{where}: not a readable image ({_line(error)})") from error
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise RequestError(
            f"{where}: {image.width:,} × {image.height:,} pixels, refused (at most {MOST_PIXELS:,} in all)"
        )
    return image


def _line(error: Exception) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
