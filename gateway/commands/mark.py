"""`miad-gateway mark`: arrays in, marked arrays out; no DICOM and no vault."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from gateway.commands.options import AsJson, Overwrite, check_outputs
from gateway.commands.output import say, show_json
from gateway.commands.packs import OwnPacks, read_own_packs, tell_networks
from gateway.commands.progress import ProgressShown, Shown, showing_progress
from gateway.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from gateway.mark import MarkedImage, MarkRequest
    from gateway.mark.settings import MarkSettings

PICTURE_ROWS = 8
"""Images that a picture shows at most: the first ones."""


class Tier(StrEnum):
    """What a reader sees of the mark."""

    LETTERED = "lettered"
    DISCREET = "discreet"
    NOTICE = "notice"
    AIR = "air"


def mark(
    arrays: Annotated[
        Path,
        typer.Argument(
            exists=True,
            dir_okay=False,
            metavar="ARRAYS.npz",
            help="Key images: uint8, uint16 or int16, N,H,W or N,H,W,3. Key masks, optional: bool N,H,W, the region "
            "of interest, which stays as it is.",
        ),
    ],
    profile: Annotated[str, typer.Option(help="Modality profile, e.g. brain-mr, mr, ct, cr-dx, fundus, dermoscopy.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", dir_okay=False, help="Marked images, psnr in dB and more of each.")
    ],
    tier: Annotated[
        Tier | None,
        typer.Option(
            help="notice: words in the air, nothing visible on the anatomy. lettered: words over the anatomy too. air: "
            "words in the air, the anatomy unchanged. discreet: nothing visible.",
            show_default="notice",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            help="How the mark is made: strong, generator (a trained network, one pass), or paper (one flat logo or "
            "text, a baseline)."
        ),
    ] = "strong",
    steps: Annotated[int | None, typer.Option(min=0, max=1000, help="Optimiser steps; 0 misleads nothing.")] = None,
    refine: Annotated[int | None, typer.Option(min=0, max=5, help="Optimiser steps after the generator.")] = None,
    generator: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A generator file of train-mark; default: a packaged one."),
    ] = None,
    own_packs: OwnPacks = None,
    text: Annotated[str | None, typer.Option(help="The lettering.")] = None,
    logo: Annotated[Path | None, typer.Option(help="An image file, drawn instead of the text.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    seed: Annotated[int | None, typer.Option(min=0, help="A key from a number: for trials that are to repeat.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A key: 32 bytes in hexadecimal, as mark.key.")
    ] = None,
    report: Annotated[Path | None, typer.Option(dir_okay=False, help="What may be seen of each mark, as JSON.")] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help=f"A PNG of the first {PICTURE_ROWS} images: original, marked, difference x20, and what is above the "
            "threshold of visibility inside (blue) and outside (red) strokes.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Mark images in a NumPy file. The same key, device and library give the same marks."""
    written = {"--out": out, "--report": report, "--picture": picture}
    check_outputs(
        written, [arrays, *filter(None, (logo, key_file, generator)), *(own_packs or ())], overwrite=overwrite
    )
    if seed is not None and key_file is not None:
        raise ConfigError("two-keys", "--seed and --key-file exclude each other")
    images, masks = _read(arrays)
    key = _key(seed, key_file)
    packs = read_own_packs(own_packs or ())
    settings = _settings(
        tier=None if tier is None else tier.value,
        mode=mode,
        steps=steps,
        refine=refine,
        generator=generator,
        text=text,
        logo=logo,
        device=device,
        surrogates=tuple(pack.name for pack in packs),
    )
    from gateway.mark import Marker
    from gateway.mark.arrays import as_arrays, mark_all, requests_for

    requests = requests_for(images, masks, key)
    marker = Marker(settings, packs or None)
    with showing_progress("marking", shown, as_json=as_json) as progress:
        marked = mark_all(requests, profile, marker, progress)
    networks = tell_networks(marker.surrogates, packs)
    result = as_arrays(marked)
    _write(out, lambda file: _save_arrays(file, result), "--out")
    if report is not None:
        _write(report, lambda file: file.write(_report(marked, profile, settings, networks)), "--report")
    if picture is not None:
        _write(picture, lambda file: _draw(file, requests, marked, profile), "--picture")
    psnr = result["psnr"]
    if as_json:
        for index, (decibel, share) in enumerate(zip(psnr, result["stroke_share"], strict=True)):
            note = {"note": marked[index].note} if marked[index].note else {}
            show_json({"index": index, "psnr": float(decibel), "stroke_share": float(share), **note})
    _tell_notes(marked)
    changed = psnr[result["notes"] != "blank"]
    if changed.size:
        say(f"{len(changed)} images marked, display PSNR {changed.min():.1f} to {changed.max():.1f} dB: {out}")
    else:
        say(f"no image holds a picture, nothing was marked: {out}")


NOTES = {
    "blank": "all pixels have one value, left as it is",
    "empty": "even air that takes no change below visibility, left as it is",
    "no-anatomy": "nothing brighter than air, or too little of it for a letter: letters lie beside it",
    "page": "a page of text: letters lie where there is none",
    "no-words": "no whole word of the text fits: nothing visible was drawn",
}


def _tell_notes(marked: Sequence[MarkedImage]) -> None:
    """Say of which images what was out of the ordinary."""
    for note, meaning in NOTES.items():
        numbers = [str(index) for index, one in enumerate(marked) if one.note == note]
        if numbers:
            say(f"image {', '.join(numbers)}: {meaning}")


def _settings(**chosen: Any) -> MarkSettings:
    """The mark's settings; what was not chosen stands at the mark's own default."""
    from pydantic import ValidationError

    from gateway.mark.settings import MarkSettings

    try:
        return MarkSettings(**{name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        raise ConfigError("bad-setting", "; ".join(_wrong(detail) for detail in error.errors())) from None


def _wrong(detail: Mapping[str, Any]) -> str:
    """One problem of the settings: which option and what is wrong; settings that disagree name no option."""
    text = detail["msg"].replace("Input should", "must").removeprefix("Value error, ")
    return f"--{detail['loc'][0]}: {text}" if detail["loc"] else text


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """`images` and, when there, `masks`; their shapes and types are judged where they are marked."""
    from zipfile import BadZipFile

    import numpy as np

    hint = "make it with numpy.savez(file, images=...)"
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            found = {name: archive[name] for name in ("images", "masks") if name in archive}
    except (OSError, ValueError, EOFError, BadZipFile):
        raise ConfigError("not-arrays", f"{path} is no .npz file of plain arrays", hint) from None
    if "images" not in found:
        raise ConfigError("no-images", f"{path} has no array named 'images'", hint)
    return found["images"], found.get("masks")


def _key(seed: int | None, key_file: Path | None) -> bytes:
    """32 bytes: from the file, from the number, or random."""
    import hashlib
    import secrets

    if key_file is not None:
        try:
            key = bytes.fromhex(key_file.read_text("ascii").strip())
        except ValueError:
            key = b""
        if len(key) != 32:
            raise ConfigError("bad-key", f"{key_file} does not hold 32 bytes in hexadecimal", "miad-gateway keys make")
        return key
    if seed is not None:
        return hashlib.sha256(f"miad-gateway mark --seed {seed}".encode()).digest()
    say("no --seed and no --key-file: a random key is used, so these marks cannot be made again")
    return secrets.token_bytes(32)


def _report(marked: Sequence[MarkedImage], profile: str, settings: MarkSettings, networks: Sequence[str]) -> bytes:
    """Settings, the networks that it was made against, and the quality of every image as JSON."""
    import json

    images = [{"index": index, **one.quality.as_dict()} for index, one in enumerate(marked)]
    whole = {"profile": profile, "settings": settings.model_dump(mode="json"), "networks": networks, "images": images}
    return (json.dumps(whole, indent=2, allow_nan=False) + "\n").encode()


def _draw(file: IO[bytes], requests: Sequence[MarkRequest], marked: Sequence[MarkedImage], profile: str) -> None:
    """The picture of the first images."""
    from gateway.mark import load_profiles
    from gateway.mark.evaluation.picture import pair_of, save_picture

    factor = load_profiles()[profile].noise_factor
    shown = list(zip(requests, marked, strict=True))[:PICTURE_ROWS]
    save_picture([pair_of(*both, factor, f"image {index}") for index, both in enumerate(shown)], file)


def _save_arrays(file: IO[bytes], arrays: dict[str, np.ndarray]) -> None:
    import numpy as np

    np.savez(file, allow_pickle=False, **arrays)


def _write(path: Path, fill: Callable[[IO[bytes]], object], option: str) -> None:
    """All of the file or none of it: written beside it, then renamed."""
    import os

    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            fill(file)
        beside.replace(path)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror}"
        raise ConfigError("cannot-write", message, f"choose another {option}") from None
    finally:
        beside.unlink(missing_ok=True)
