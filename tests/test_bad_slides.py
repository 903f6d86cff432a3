"""Files that are no slides, or no longer: one line that names the file, says what is wrong and what to do."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nuclix.engine.errors import SlideError
from nuclix.engine.geometry import Box
from nuclix.engine.slide.damage import TileDamage
from nuclix.engine.slide.open import check_file, fingerprint, open_slide, slide_scale
from nuclix.plugins.readers import _tiles
from nuclix.plugins.readers._codestreams import stated_size
from nuclix.plugins.readers._storage import RandomAccessFile
from nuclix.plugins.readers.tiffslide import TiffSlideReader
from nuclix.testing.reader import open_files
from slides import damage_tile, lose_tile, noise_image, page_tiles, smooth_image, write_slide

SIZE = 384
WHOLE = Box(0, 0, SIZE, SIZE)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_slide(tmp_path_factory.mktemp("whole") / "slide.svs", smooth_image(SIZE, SIZE)).read_bytes()


@pytest.fixture
def slide(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "slide.svs"
    path.write_bytes(content)
    return path


def message(path: Path, *, read: bool = True) -> str:
    """Return what a user is told; check that nothing stays open."""
    before = open_files()
    with pytest.raises(SlideError) as caught:
        reader = open_slide(path)
        try:
            if read:
                reader.read(0, WHOLE)
        finally:
            reader.close()
    text = str(caught.value)
    del caught
    assert open_files() == before
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_text_named_svs(tmp_path: Path) -> None:
    path = tmp_path / "notes.svs"
    path.write_text("not an image at all\n")
    assert "not an image that any installed reader recognises (readers: " in message(path)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.svs"
    path.touch()
    assert "is empty (0 bytes); copy the slide again" in message(path)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "gone.svs")


def test_folder(tmp_path: Path) -> None:
    assert "is a folder, not a slide" in message(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(slide: Path) -> None:
    slide.chmod(0)
    assert "may not be read by this user" in message(slide)


def test_unreadable_file_as_root_sees_it(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SlideError, match=r"slide\.svs: may not be read by this user; change its permissions"):
        check_file(slide)
    with pytest.raises(SlideError, match=r"slide\.svs: may not be read"):
        fingerprint(slide)


def test_disk_error(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Path, *_: object) -> None:
        raise OSError(5, "Input/output error", str(self))

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(SlideError, match=r"slide\.svs: can't be read \(Input/output error\)"):
        check_file(slide)


@pytest.mark.parametrize("length", [4, 8, 16, 100])
def test_only_the_head_of_a_tiff(length: int, slide: Path) -> None:
    slide.write_bytes(slide.read_bytes()[:length])
    assert "is damaged or not a whole TIFF" in message(slide, read=False)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_cut_short_is_seen_on_opening(part: float, slide: Path) -> None:
    content = slide.read_bytes()
    slide.write_bytes(content[: int(len(content) * part)])
    text = message(slide, read=False)
    assert "copy it again" in text


def test_directory_at_the_end_is_lost(slide: Path) -> None:
    """Writers that put the directory last leave nothing to find in half a file."""
    content = bytearray(slide.read_bytes())
    content[4:8] = struct.pack("<I", len(content) + 100)
    slide.write_bytes(content)
    assert "is damaged or not a whole TIFF" in message(slide, read=False)


@pytest.mark.parametrize("junk", [None, b"\xff\xd8" + b"no JPEG" * 9999, b"text" * 100], ids=["zeros", "start", "text"])
def test_damaged_tile_is_named_when_it_is_read(junk: bytes | None, slide: Path) -> None:
    damage_tile(slide, 0, 5, junk)
    text = message(slide)
    assert "level 0, tile in row 1, column 2" in text
    assert "copy or export it again" in text


def test_other_tiles_of_a_damaged_file_are_read(slide: Path) -> None:
    damage_tile(slide, 0, 5)
    reader = open_slide(slide)
    assert (reader.read(0, Box(0, 0, 128, 384)) != 255).any()
    assert (reader.read(1, Box(0, 0, 96, 96)) != 255).any()
    with pytest.raises(SlideError):
        reader.read(0, Box(127, 255, 2, 2))
    reader.close()


def test_half_a_tile_is_not_painted_grey(slide: Path) -> None:
    """JPEG decoders fill the rest of a broken picture with grey and say nothing."""
    offsets, counts = page_tiles(slide, 0)
    with slide.open("r+b") as file:
        file.seek(offsets[3] + counts[3] // 2)
        file.write(bytes(counts[3] - counts[3] // 2))
    text = message(slide)
    assert "tile in row 1, column 0 is cut short: it is not a whole JPEG" in text


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "none", "jpeg2000"])
def test_missing_tiles_are_background(compression: str, tmp_path: Path) -> None:
    """Aperio's scanners and Philips' exporter leave tiles out."""
    path = write_slide(tmp_path / "a.svs", smooth_image(SIZE, SIZE), compression=compression, downs=(1,))
    with closing(TiffSlideReader.open(path)) as reader:
        expected = reader.read(0, WHOLE)
        assert reader.damage == TileDamage(0, 0)
    lose_tile(path, 0, 7)
    expected[256:, 128:256] = 255
    with closing(TiffSlideReader.open(path)) as reader:
        assert (reader.read(0, WHOLE) == expected).all()
        assert reader.damage == TileDamage(1, 0)


def test_a_coarse_level_without_tiles_shows_the_finer_one(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", smooth_image(1024, 1024), downs=(1, 4), compression="none")
    with closing(TiffSlideReader.open(path)) as reader:
        expected = reader.read(1, Box(0, 0, 256, 256))
    lose_tile(path, 2, 0)
    with closing(TiffSlideReader.open(path)) as reader:
        assert (reader.read(1, Box(0, 0, 256, 256)) == expected).all()
        assert reader.uniform(1, Box(0, 0, 128, 128)) is None
    for index in range(4):
        for row in range(4):
            lose_tile(path, 0, 8 * row + index)
    expected[:128, :128] = 255
    with closing(TiffSlideReader.open(path)) as reader:
        assert (reader.read(1, Box(0, 0, 256, 256)) == expected).all()
        assert reader.uniform(1, Box(0, 0, 128, 128)) == (255, 255, 255)
        assert reader.uniform(1, Box(0, 0, 129, 128)) is None


def test_a_slide_without_any_tile_is_no_background(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", smooth_image(100, 100), downs=(1,))
    lose_tile(path, 0, 0)
    assert "every tile of level 0 is empty" in message(path)


def test_tolerated_damage(slide: Path) -> None:
    damage_tile(slide, 0, 5)
    damage_tile(slide, 0, 7)
    with closing(TiffSlideReader.open(slide)) as reader:
        reader.tolerate_damage(1)
        assert (reader.read(0, Box(128, 256, 128, 128)) == 255).all()
        assert (reader.read(0, Box(128, 256, 128, 128)) == 255).all()
        assert reader.damage == TileDamage(0, 1)
        with pytest.raises(SlideError, match=r"row 2, column 1 .*more than 1 tiles are damaged"):
            reader.read(0, WHOLE)
        reader.tolerate_damage(2)
        assert (reader.read(0, WHOLE)[256:, 128:256] == 255).all()
        assert reader.damage == TileDamage(0, 2)


def test_what_one_system_call_does_not_return_is_read_by_the_next(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pread returns at most 2 GiB less a page."""
    with closing(TiffSlideReader.open(slide)) as reader:
        expected = reader.read(0, WHOLE)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda number, count, offset: pread(number, min(count, 999), offset))
    with closing(TiffSlideReader.open(slide)) as reader:
        assert (reader.read(0, WHOLE) == expected).all()
    with pytest.raises(EOFError), closing(RandomAccessFile(slide)) as file:
        file.read(0, slide.stat().st_size + 1)


def test_tall_strips_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers put an image of any size into one strip."""
    image = noise_image(300, 200)
    counts = []
    pread = os.pread
    monkeypatch.setattr(_tiles, "STRIP_PIXELS", 3000)
    for number, options in enumerate(({}, {"rowsperstrip": 100}, {"planarconfig": "separate"}, {"byteorder": ">"})):
        planes = "planarconfig" in options
        data = np.ascontiguousarray(np.moveaxis(image, 2, 0)) if planes else image
        tifffile.imwrite(tmp_path / f"{number}.tif", data, photometric="rgb", **options)
        with monkeypatch.context() as patch, closing(TiffSlideReader.open(tmp_path / f"{number}.tif")) as reader:
            patch.setattr(os, "pread", lambda file, count, place: (counts.append(count), pread(file, count, place))[1])
            assert (reader.read(0, Box(7, 0, 290, 200)) == image[7:297]).all()
    assert max(counts) <= 9000


@pytest.mark.parametrize(
    "claim",
    [
        lambda: imagecodecs.jpeg_encode(np.zeros((2000, 2000, 3), np.uint8), level=10),
        lambda: imagecodecs.jpeg2k_encode(np.zeros((2000, 2000, 3), np.uint8), codecformat="j2k"),
        lambda: imagecodecs.jpeg2k_encode(np.zeros((2000, 2000, 3), np.uint8), codecformat="jp2"),
        lambda: imagecodecs.webp_encode(np.zeros((2000, 2000, 3), np.uint8), lossless=True),
        lambda: imagecodecs.webp_encode(np.zeros((2000, 2000, 3), np.uint8)),
        lambda: imagecodecs.png_encode(np.zeros((2000, 2000, 3), np.uint8)),
    ],
    ids=["jpeg", "j2k", "jp2", "webp lossless", "webp", "png"],
)
def test_a_tile_that_claims_to_be_larger_is_not_decoded(
    claim: Callable[[], bytes], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    kind = request.node.callspec.id
    compression = {"jpeg": 7, "j2k": 34712, "jp2": 34712, "png": 34933}.get(kind, 50001)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        shape = (256, 256, 3)
        tile = claim()
        file.write(
            iter([tile]), shape=shape, dtype=np.uint8, tile=(256, 256), compression=compression, photometric="rgb"
        )
    assert "claims 2000 x 2000 px, but a tile has 256 x 256; not decoded" in message(tmp_path / "a.tif")
    assert stated_size(compression, tile) == (2000, 2000)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_tiles_too_large_to_decode(compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise_image(300, 300)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression=compression, rowsperstrip=300)
    monkeypatch.setattr(_tiles, "MAX_TILE_PIXELS", 299 * 300)
    assert "has tiles or strips of 300 x 300 px, which must be decoded whole" in message(tmp_path / "a.tif")


def test_a_level_larger_than_the_first(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=True) as file:
        file.write(noise_image(64, 64), photometric="rgb", subifds=1, tile=(64, 64))
        file.write(noise_image(128, 128), photometric="rgb", subfiletype=1, tile=(64, 64))
    assert "level 1 (128 x 128 px) is larger than its first (64 x 64 px)" in message(tmp_path / "a.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
def test_a_fifo_is_no_slide(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.svs")
    assert "is a FIFO, not a file; name a slide" in message(tmp_path / "fifo.svs")
    with pytest.raises(SlideError, match="is a FIFO"):
        fingerprint(tmp_path / "fifo.svs")


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="the system has no such device")
def test_a_device_is_no_slide() -> None:
    assert "is a device, not a file" in message(Path("/dev/zero"))


def test_damaged_tile_of_a_coarse_level(slide: Path) -> None:
    damage_tile(slide, 2, 0)
    reader = open_slide(slide)
    reader.read(0, WHOLE)
    with pytest.raises(SlideError, match="level 1, tile in row 0, column 0"):
        reader.read(1, Box(0, 0, 1, 1))
    reader.close()


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "bmp"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_cut_images(kind: str, part: float, tmp_path: Path) -> None:
    path = tmp_path / f"image.{kind}"
    Image.fromarray(noise_image(SIZE, SIZE)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: max(20, int(len(content) * part))])
    assert "copy it again" in message(path)


def test_slide_without_scale(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.svs", smooth_image(SIZE, SIZE), mpp=None)
    reader = open_slide(path)
    reader.close()
    with pytest.raises(SlideError, match=r"a\.svs: states no scale; give it with --mpp"):
        slide_scale(reader.info)
    assert slide_scale(reader.info, 0.5).mpp == 0.5


def test_a_file_that_changes_under_the_reader(slide: Path) -> None:
    reader = open_slide(slide)
    slide.write_bytes(slide.read_bytes()[:3000])
    with pytest.raises(SlideError, match="reaches past the end of the file"):
        reader.read(0, WHOLE)
    reader.close()


@given(data=st.data())
def test_any_damage_is_a_slide_error_or_pixels(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Bytes overwritten anywhere: no other exception, no warning, nothing left open."""
    path = tmp_path_factory.mktemp("fuzz") / "slide.svs"
    write_slide(path, smooth_image(150, 150), downs=(1,))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.one_of(st.integers(4, 600), st.integers(4, len(content) - 1)))
        junk = data.draw(st.binary(min_size=1, max_size=12))
        content[start : start + len(junk)] = junk
    path.write_bytes(content)
    before = open_files()
    try:
        reader = open_slide(path)
    except SlideError as error:
        assert "slide.svs" in str(error)
    else:
        try:
            level = reader.info.levels[0]
            assert reader.read(0, Box(0, 0, min(level.height, 200), min(level.width, 200))).dtype == np.uint8
        except SlideError as error:
            assert "slide.svs" in str(error)
        finally:
            reader.close()
    assert open_files() == before


def test_bytes_of_no_kind(tmp_path: Path) -> None:
    for index, content in enumerate([b"\x89PNG\r\n\x1a\n" + bytes(30), b"BM" + bytes(40), b"II*\0" + bytes(40)]):
        path = tmp_path / f"{index}.svs"
        path.write_bytes(content)
        assert "damaged" in message(path)


def test_tags_that_lie_about_the_size(tmp_path: Path) -> None:
    """A picture said to be larger than its tiles is refused, not filled up."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise_image(128, 128), photometric="rgb", tile=(64, 64))
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(struct.pack("<H", 1000))
    assert "lists 4" in message(path, read=False)
