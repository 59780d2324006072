"""A site's logo: drawn instead of the text, and every file that cannot be drawn told in words."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from gateway.errors import ConfigError, MarkError
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings
from gateway.mark.placement.logo import MAX_BYTES, load_logo, scale_ink
from gateway.mark.placement.stamps import logo_stamp
from gateway.mark.placement.words import IN_AIR, lay_words, place
from tests.support.mark.samples import BRAIN, FAST, KEY, disc, gray8, requests, small_pack


def ring(side: int = 120) -> Image.Image:
    """Return a black ring with a bar on white."""
    sheet = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(sheet)
    draw.ellipse((side // 8, side // 8, side - side // 8, side - side // 8), outline=0, width=side // 6)
    draw.rectangle((side // 4, side * 7 // 16, side * 3 // 4, side * 9 // 16), fill=0)
    return sheet


def comb(teeth: int) -> Image.Image:
    """Return thin vertical bars, as wide as the gaps between them."""
    columns = np.arange(teeth * 8) // 4 % 2
    return Image.fromarray(np.tile(columns * 255, (teeth * 4, 1)).astype(np.uint8))


def saved(folder: Path, image: Image.Image, name: str = "logo.png") -> Path:
    """Return the path of an image saved under ``folder``."""
    image.save(folder / name)
    return folder / name


def png(width: int, height: int) -> bytes:
    """Return a PNG that declares a size and holds no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["gray", "rgb", "palette", "one bit", "16 bits", "alpha", "palette with transparency"])
def test_ink_is_what_is_dark_or_opaque(tmp_path: Path, kind: str) -> None:
    plain = ring()
    dark = np.asarray(plain) < 128
    alpha = Image.fromarray(np.where(dark, 255, 0).astype(np.uint8))
    white = Image.new("L", plain.size, 255)
    palette = Image.fromarray(dark.astype(np.uint8)).convert("P")
    palette.info["transparency"] = 0
    image = {
        "gray": plain,
        "rgb": Image.merge("RGB", [plain] * 3),
        "palette": plain.convert("P"),
        "one bit": plain.convert("1"),
        "16 bits": Image.fromarray(np.asarray(plain).astype(np.uint16) * 257),
        "alpha": Image.merge("LA", [white, alpha]),  # white ink on nothing
        "palette with transparency": palette,
    }[kind]
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    trimmed = dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert np.array_equal(load_logo(saved(tmp_path, image)), trimmed)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"no image", "unusual", "cut", png(64, 64)],
    ids=["missing", "empty", "text", "unusual format", "cut", "no pixels"],
)
def test_unreadable(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "logo.png"
    if content == "cut":
        whole = saved(tmp_path, Image.effect_noise((64, 64), 60.0)).read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "unusual":
        ring().save(path, format="TGA")  # Pillow reads it; the list of formats does not hold it
    elif content is not None:
        path.write_bytes(content)
    assert code_of(path) == "logo-unreadable"
    assert code_of(tmp_path) == "logo-unreadable"  # a folder


@pytest.mark.parametrize("size", [(5000, 5000), (10_000, 10_000), (60_000, 60_000)], ids=str)
def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logo.png").write_bytes(png(*size))
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was decoded"))
    assert code_of(tmp_path / "logo.png") == "logo-too-large"


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = saved(tmp_path, ring())
    with path.open("ab") as file:
        file.truncate(MAX_BYTES)
    assert load_logo(path).any()
    with path.open("ab") as file:
        file.truncate(MAX_BYTES + 1)
    assert code_of(path) == "logo-too-large"


@pytest.mark.parametrize(
    "image",
    [Image.new("L", (40, 40), 255), Image.new("L", (40, 40), 0), Image.new("RGBA", (40, 40), (0, 0, 0, 0))],
    ids=["white", "black", "transparent"],
)
def test_empty(tmp_path: Path, image: Image.Image) -> None:
    assert code_of(saved(tmp_path, image)) == "logo-empty"


def code_of(path: Path) -> str:
    """Return the code of the error that a logo file gives, also when a marker is made with it."""
    with pytest.raises(ConfigError) as caught:
        load_logo(path)
    assert str(path) in caught.value.message and caught.value.hint
    with pytest.raises(ConfigError) as again:
        Marker(FAST.model_copy(update={"logo": path}), packs=[])
    assert again.value.code == caught.value.code
    return caught.value.code


def test_a_logo_keeps_its_shape_and_says_when_it_cannot() -> None:
    fine = np.asarray(comb(16)) == 0
    drawn = logo_stamp(fine, 60.0)  # 170 pixels long: bars of 5
    assert drawn.ink.any() and not drawn.rim.any()
    with pytest.raises(MarkError) as caught:
        logo_stamp(fine, 10.0)  # bars of less than one pixel
    assert caught.value.code == "logo-too-fine"
    ink, coverage = scale_ink(np.asarray(ring()) == 0, 90.0)
    assert ink.shape == (90, 90)
    assert ink.mean() == pytest.approx(coverage.mean(), rel=0.05)


@pytest.mark.parametrize("mode", ["strong", "paper"])
def test_the_logo_is_drawn_instead_of_the_text(tmp_path: Path, mode: str) -> None:
    request = MarkRequest(gray8(192, 192), KEY, roi=disc((192, 192), 0.15))
    settings = FAST.model_copy(update={"mode": mode})
    with_logo = settings.model_copy(update={"logo": saved(tmp_path, ring())})
    (text,) = Marker(settings, packs=[small_pack()]).mark([request], BRAIN)
    (logo,) = Marker(with_logo, packs=[small_pack()]).mark([request], BRAIN)
    assert isinstance(logo, MarkedImage) and isinstance(text, MarkedImage)
    assert logo.strokes.any() and not np.array_equal(logo.strokes, text.strokes)
    assert not (logo.strokes & ~logo.region).any()
    assert np.array_equal(logo.image[logo.roi], request.image[logo.roi])
    other = Marker(with_logo.model_copy(update={"text": "OTHER"}), packs=[small_pack()]).mark([request], BRAIN)[0]
    assert np.array_equal(other.image, logo.image)


def test_strokes_of_a_logo_are_its_ink_as_often_as_it_fits() -> None:
    ink = np.asarray(ring()) == 0
    stamp = logo_stamp(ink, 25.0)
    free = np.ones((256, 256), bool)
    found = lay_words(free, [(25, lambda *_: stamp)], KEY, place(KEY, 0.0), IN_AIR, 10_000)
    count = int(found.words.max())
    assert count > 1 and found.strokes.sum() == count * stamp.ink.sum() <= 10_000
    assert not lay_words(free[:40], [(25, lambda *_: stamp)], KEY, place(KEY, 0.0), IN_AIR, 10_000).strokes.any()


@pytest.mark.parametrize("mode", ["strong", "paper"])
def test_too_fine_for_one_image_leaves_the_others_alone(tmp_path: Path, mode: str) -> None:
    settings = MarkSettings(steps=0, device="cpu", mode=mode, logo=saved(tmp_path, comb(32)))
    small = requests(1)[0]
    large = MarkRequest(gray8(768, 768), KEY, roi=disc((768, 768), 0.15))
    results = Marker(settings, packs=[small_pack()]).mark([small, large], BRAIN)
    assert isinstance(results[0], MarkError) and results[0].code == "logo-too-fine"
    assert isinstance(results[1], MarkedImage)
