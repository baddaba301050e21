"""Pictures of every kind that people bring, each made so that the answer is known: a bright bar on the left."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from bench.api import DataError
from bench.tasks.pictures import Reading, is_grey, opened, picture_size, read_picture

SIZE = 8
GREY, COLOUR, INK = Reading(1, SIZE, SIZE), Reading(3, SIZE, SIZE), Reading(1, SIZE, SIZE, ink=True)


def bar(low=0, high=255, dtype=np.uint8):
    """Return a square with its left quarter at ``high``, all else at ``low``."""
    pixels = np.full((SIZE, SIZE), low, dtype)
    pixels[:, : SIZE // 4] = high
    return pixels


def saved(path, image, **options):
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(path, **options)
    return path


KINDS = {
    "8 bit": lambda p: saved(p / "x.png", bar()),
    "16 bit colour": lambda p: _deep(p / "x.png", bar(0, 4095, np.uint16), 2),
    "16 bit colour and clear": lambda p: _deep(p / "x.png", bar(0, 4095, np.uint16), 6),
    "16 bit grey and clear": lambda p: _deep(p / "x.png", bar(0, 4095, np.uint16), 4),
    "bitmap": lambda p: saved(p / "x.bmp", Image.fromarray(bar()).convert("RGB")),
    "1 bit": lambda p: saved(p / "x.png", Image.fromarray(bar()).convert("1")),
    "palette": lambda p: saved(p / "x.png", Image.fromarray(bar()).convert("P")),
    "16 bit": lambda p: saved(p / "x.png", bar(0, 65535, np.uint16)),
    "16 bit, of which 12 are used": lambda p: saved(p / "x.png", bar(0, 4095, np.uint16)),
    "16 bit TIFF, last byte first": lambda p: saved(p / "x.tiff", bar(0, 65535, np.uint16)),
    "32 bit": lambda p: saved(p / "x.tiff", bar(-7, 10**6, np.int32)),
    "fractions": lambda p: saved(p / "x.tiff", bar(0.0, 1.0, np.float32)),
    "fractions up to 255": lambda p: saved(p / "x.tiff", bar(0.0, 255.0, np.float32)),
    "colour": lambda p: saved(p / "x.png", Image.fromarray(bar()).convert("RGB")),
    "CMYK": lambda p: saved(p / "x.tiff", Image.fromarray(bar()).convert("RGB").convert("CMYK")),
    "white ink on a clear ground": lambda p: saved(p / "x.png", _clear(255)),
    "animated": lambda p: _animated(p / "x.gif"),
    "animated PNG": lambda p: _animated(p / "x.png"),
    "turned by its camera": lambda p: _turned(p / "x.png"),
    "webp": lambda p: saved(p / "x.webp", bar(), lossless=True),
    "capital letters": lambda p: saved(p / "X.PNG", bar()),
}


def _deep(path, pixels, kind):
    """Write a PNG of 16 bits a colour, which Pillow cannot; ``kind`` is PNG's: 2 RGB, 4 grey and alpha, 6 RGBA."""
    colours = np.stack([pixels] * (1 if kind == 4 else 3) + [np.full_like(pixels, 65535)] * (kind > 2), axis=-1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    header = struct.pack(">IIBBBBB", *pixels.shape[::-1], 16, kind, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


def _clear(ink):
    """Return a bar of ink on a ground that is transparent and, where one does not look at that, of the same colour."""
    pixels = np.full((SIZE, SIZE, 4), ink, np.uint8)
    pixels[..., 3] = bar()
    return Image.fromarray(pixels)


def _animated(path):
    frames = [Image.fromarray(bar()), Image.fromarray(bar()[::-1, ::-1])]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def _turned(path):
    """Save the bar on top, with the tag that says to turn it by a quarter against the clock."""
    tags = Image.Exif()
    tags[0x0112] = 8
    return saved(path, np.rot90(bar(), -1).copy(), exif=tags)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_the_same_bar(kind, tmp_path):
    path = KINDS[kind](tmp_path)
    np.testing.assert_array_equal(read_picture(path, GREY), bar()[None])
    np.testing.assert_array_equal(read_picture(path, COLOUR), np.stack([bar()] * 3))
    np.testing.assert_array_equal(read_picture(path, INK), bar()[None])
    assert read_picture(path, GREY).flags.writeable  # as torch wants it


def test_black_ink_on_a_clear_ground_lies_on_white(tmp_path):
    path = saved(tmp_path / "x.png", _clear(0))
    np.testing.assert_array_equal(read_picture(path, GREY), 255 - bar()[None])
    np.testing.assert_array_equal(read_picture(path, INK), bar()[None])


def test_a_jpeg_is_close_to_what_was_saved(tmp_path):
    large = Image.fromarray(bar()).resize((512, 512), Image.Resampling.NEAREST)
    right = read_picture(saved(tmp_path / "x.png", large), GREY).astype(int)
    path = saved(tmp_path / "x.jpg", large, quality=95)
    assert np.abs(read_picture(path, GREY) - right).max() < 12
    cmyk = saved(tmp_path / "y.jpg", large.convert("RGB").convert("CMYK"), quality=95)
    assert np.abs(read_picture(cmyk, COLOUR) - right).max() < 12


def test_dark_ink_on_paper_becomes_light_ink_at_full_contrast(tmp_path):
    """A scan of 16 bits, ink 2,000 on paper 60,000."""
    np.testing.assert_array_equal(
        read_picture(saved(tmp_path / "x.png", bar(60000, 2000, np.uint16)), INK), bar()[None]
    )


def test_colours_stay_and_their_channels_come_first(tmp_path):
    path = saved(tmp_path / "x.png", np.stack([bar(), 255 - bar(), bar(9, 9)], axis=-1))
    np.testing.assert_array_equal(read_picture(path, COLOUR), np.stack([bar(), 255 - bar(), bar(9, 9)]))
    assert not is_grey(opened(path))
    assert is_grey(opened(saved(tmp_path / "y.png", bar())))


def test_a_wide_picture_is_cut_padded_or_stretched(tmp_path):
    """16 x 8: the left quarter of the whole is white; the middle half is what a cut keeps, and it is black there."""
    wide = np.repeat(bar(), 2, axis=1)  # white: columns 0 to 3 of 16
    wide[:, -1] = 128
    path = saved(tmp_path / "x.png", wide)
    np.testing.assert_array_equal(read_picture(path, Reading(1, 8, 8, "stretch"))[0, :, 0], 255)
    padded = read_picture(path, Reading(1, 8, 8, "pad"))[0]
    np.testing.assert_array_equal(padded[[0, 1, 6, 7]], 255)  # the ground is the colour of the corner
    np.testing.assert_array_equal(padded[2:6, 4:7], 0)
    with pytest.raises(DataError, match="is blank"):
        read_picture(path, Reading(1, 8, 8, "crop"))


NEARLY = (bar(200, 202), bar(60000, 60003, np.uint16), bar(0.5, 0.50001, np.float32))  # no more than noise


@pytest.mark.parametrize("pixels", [bar(7, 7), bar(7, 7, np.uint16), bar(0.5, 0.5, np.float32), *NEARLY])
@pytest.mark.parametrize("reading", [GREY, COLOUR, INK])
def test_a_blank_picture_is_named(tmp_path, pixels, reading):
    path = saved(tmp_path / "x.tiff", pixels)
    with pytest.raises(DataError) as caught:
        read_picture(path, reading)
    assert str(caught.value) == f"{path}: is blank, all of it one colour; accepted: pictures that show something"


def test_single_broken_pixels_do_not_decide_how_dark_a_scan_is(tmp_path):
    """One of 10,000 pixels is at the end of the range, the others from 1,000 to 1,400."""
    scan = np.full((100, 100), 1000, np.uint16)
    scan[:, :25] = 1400
    scan[50, 50] = 65535
    read = read_picture(saved(tmp_path / "x.png", scan), Reading(1, 100, 100))[0]
    assert (read[0, 0], read[0, 99], read[50, 50]) == (255, 0, 255)


def test_a_bold_letter_is_ink_though_it_covers_most_of_the_paper(tmp_path):
    page = np.full((20, 20), 255, np.uint8)
    page[2:18, 2:18] = 10
    read = read_picture(saved(tmp_path / "x.png", page), Reading(1, 20, 20, ink=True))[0]
    assert (read[0, 0], read[10, 10]) == (0, 255)


@pytest.mark.parametrize("grey", [100, 125, 130, 190])
def test_photographs_with_clear_corners_lie_on_white_however_bright(tmp_path, grey):
    pixels = np.full((SIZE, SIZE, 4), grey, np.uint8)
    pixels[..., 3] = 255
    pixels[:2, :2, 3] = 0
    read = read_picture(saved(tmp_path / "x.png", Image.fromarray(pixels)), GREY)[0]
    assert (read[0, 0], read[4, 4]) == (255, grey)


def test_a_broken_file_is_named_with_its_reason(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(whole, "PNG")
    cut, text, fraction = tmp_path / "cut.png", tmp_path / "text.png", tmp_path / "x.tiff"
    cut.write_bytes(whole.getvalue()[:-900])
    text.write_text("no picture")
    saved(fraction, bar(0.0, np.nan, np.float32))
    for path, words in (
        (cut, "truncated"), (text, "no picture of a kind that Pillow knows"), (fraction, "not finite"),
        (tmp_path, "directory"), (tmp_path / "none.png", "No such file"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=words) as caught:
            read_picture(path, GREY)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    assert picture_size(cut) == (64, 64)
    assert picture_size(text) is None
