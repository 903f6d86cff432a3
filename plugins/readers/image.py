"""Plain images as slides of one level: PNG, JPEG, WebP, BMP.

Plain TIFF images are read strip by strip, with the slides in TIFF. The formats here do not say their scale in a way
that can be trusted: dots per inch in a PNG or JPEG are the editor's habit (72, 96), not the microscope's. Pixels stand
as the file stores them: an EXIF orientation is a camera's, and QuPath, which gets the outlines, does not turn images.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from nuclix.engine.contracts import Level, SlideInfo, SlideReader
from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# Where a format's first bytes are, and the Pillow class that reads it. The classes are used by name: the detour
# through PIL.Image.open tries every format and refuses honest images of more than 179 million pixels as attacks.
FORMATS = {
    "PNG": (0, b"\x89PNG\r\n\x1a\n", "PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": (0, b"\xff\xd8\xff", "PIL.JpegImagePlugin", "JpegImageFile"),
    "WebP": (8, b"WEBP", "PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": (0, b"BM", "PIL.BmpImagePlugin", "BmpImageFile"),
}
HEAD = 16  # bytes that tell the formats apart
MAX_PIXELS = 1 << 29  # an image is decoded whole, at up to 7 bytes a pixel: 3.8 GB
COLOUR_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")  # Pillow's, of 8 bits a sample


class ImageReader(SlideReader):
    """Reads an image file whole, at the first box."""

    priority: ClassVar[int] = 0

    def __init__(self, info: SlideInfo) -> None:
        self.info = info
        self._pixels: NDArray[np.uint8] | None = None
        self._lock = threading.Lock()
        self._open = True

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Return whether the file begins as one of `FORMATS`; the JPEG of an MRXS is only its preview."""
        return path.suffix.lower() != ".mrxs" and path.is_file() and _format(path) is not None

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an image; its pixels are decoded when the first box is read.

        Parameters
        ----------
        path : Path
            The file.

        Returns
        -------
        ImageReader

        Raises
        ------
        SlideError
            If the file's head is damaged, or if it is too large or too deep to be read.
        """
        try:
            with _image(path) as image:
                (width, height), mode = image.size, image.mode
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            raise SlideError(f"{path}: is a damaged {_format(path)} file ({error}); copy it again") from error
        if mode not in COLOUR_MODES:
            raise SlideError(f"{path}: has pixels of kind {mode!r}; convert it to 8-bit RGB")
        if height * width > MAX_PIXELS:
            raise SlideError(
                f"{path}: {width} x {height} px are too many for a {_format(path)} file, which must be decoded whole "
                f"(at most {MAX_PIXELS / 1e6:.0f} million); convert it to a tiled TIFF, such as with "
                "'vips tiffsave --tile --pyramid --compression jpeg'"
            )
        return cls(SlideInfo(path, "image", (Level(height, width, 1.0),), None, None))

    def read(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read a box.

        Parameters
        ----------
        level : int
            0.
        box : Box
            In pixels; may reach over the edges.

        Returns
        -------
        (height, width, 3) uint8
            RGB, white outside the image; transparent pixels lie on white.

        Raises
        ------
        SlideError
            If the image does not decode.
        """
        if level != 0:
            raise ValueError(f"{self.info.path}: has no level {level}")
        pixels = self._decoded()
        out = np.full((*box.shape, 3), 255, np.uint8)
        inside = box.intersect(Box(0, 0, *pixels.shape[:2]))
        if inside.area:
            out[inside.slices(box)] = pixels[inside.slices()]
        return out

    def _decoded(self) -> NDArray[np.uint8]:
        with self._lock:
            if not self._open:
                raise ValueError(f"{self.info.path}: read after close")
            if self._pixels is None:
                self._pixels = _decode(self.info.path)
            return self._pixels

    def close(self) -> None:
        """Forget the pixels."""
        with self._lock:
            self._open, self._pixels = False, None


def _format(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if len(head) < HEAD:
        return None
    return next((name for name, (place, magic, *_) in FORMATS.items() if head[place:].startswith(magic)), None)


def _image(path: Path) -> ImageFile:
    """Return Pillow's image with its header read, pixels not yet."""
    name = _format(path)
    if name is None:
        raise ValueError("its first bytes have changed")
    _, _, module, reader = FORMATS[name]
    image: ImageFile = getattr(importlib.import_module(module), reader)(path)
    return image


def _decode(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with _image(path) as image:
            image.load()
            if image.has_transparency_data:
                layers = image.convert("RGBA")
                flat = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
                return np.array(flat.convert("RGB"))
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise SlideError(f"{path}: does not decode ({error}); the file is damaged: copy it again") from error
