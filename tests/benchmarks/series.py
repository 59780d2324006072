"""A series marked with and without key slices: time, effect and flicker side by side.

    python -m tests.benchmarks.series [--folder FOLDER] [--slices 40] [--tier notice] [--steps 40] [--picture FILE]

``--folder`` holds the DICOM slices of one series (default: `series_mr_brain` of the data folder). The middle ones are
taken; where more are asked for than there are, slices between two are their blend (a stand-in, which is said). *Own*:
each slice begins from itself. *Key*: every 8th does, the others from the nearest (`gateway.protect.key_slices`). Told
are CPU seconds a slice on one thread, by kind; what the surrogates and the packaged held-out judge make of the marked
slices (mean margin in log odds of what they held the clean one to be, and the share that answers otherwise), PSNR over
the anatomy, and the flicker of the mark along the series. ``--picture`` gets five neighbours: clean, key, own, and the
changes of both, ten times enlarged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from gateway.dicom.encoding.part10 import split_part10
from gateway.mark import MarkedImage, Marker, MarkRequest, MarkSettings, ModalityProfile, choose_profile
from gateway.mark.evaluation.judge import display_image, load_judge
from gateway.mark.resample import resize
from gateway.mark.surrogates.consensus import consensus
from gateway.mark.surrogates.objective import margins
from gateway.mark.visibility.series import flicker
from gateway.protect.key_slices import KeyTextures, SlicePlace, Start, begin_near, is_key
from gateway.protect.marking import open_original, requests_of
from gateway.protect.policy import traits_of
from gateway.training.open_sets import shared_folder
from tests.support.mark.samples import KEY

SHOWN = 5
"""Neighbours in the picture."""


@dataclass(frozen=True)
class Way:
    """A series marked in one way.

    Attributes
    ----------
    results
        by slice.
    seconds
        CPU seconds of each.
    """

    results: list[MarkedImage]
    seconds: list[float]


def requests_of_folder(folder: Path, count: int) -> tuple[list[MarkRequest], ModalityProfile]:
    """Return ``count`` neighbouring slices of a series, in order, as the gateway would ask for them."""
    found: list[MarkRequest] = []
    profile = None
    for path in sorted(folder.glob("*.dcm")):
        with path.open("rb") as file:
            meta, offset = split_part10(file)
            file.seek(offset)
            opened = open_original(file.read(), meta.transfer_syntax_uid)
        profile = profile or choose_profile(traits_of(opened.header))
        if profile is None:
            raise SystemExit(f"no profile takes {path.name}")
        found += requests_of(opened, profile, KEY)
    if profile is None or len(found) < 2:
        raise SystemExit(f"{folder} holds no series")
    found.sort(key=lambda request: request.position or 0.0)
    if count > len(found):
        print(f"{len(found)} real slices, {count} asked for: those between two are their blend")
        return [_between(found, place) for place in np.linspace(0, len(found) - 1, count)], profile
    first = (len(found) - count) // 2
    return found[first : first + count], profile


def _between(slices: Sequence[MarkRequest], place: float) -> MarkRequest:
    low = min(int(place), len(slices) - 2)
    share, one, other = place - low, slices[low], slices[low + 1]
    blend = np.rint((1.0 - share) * one.image + share * other.image).astype(one.image.dtype)
    position = (1.0 - share) * (one.position or 0.0) + share * (other.position or 0.0)
    return replace(one, image=blend, position=position, padding=None)


def marked(marker: Marker, requests: Sequence[MarkRequest], profile: ModalityProfile, keyed: bool) -> Way:
    """Mark a series; with key slices these come first, as they do in a backlog."""
    textures, results, seconds = KeyTextures(), {}, {}
    order = sorted(range(len(requests)), key=lambda number: (keyed and not is_key(number), number))
    for number in order:
        start = textures.near((), number) if keyed and not is_key(number) else None
        began = time.process_time()
        (result,) = marker.mark([begin_near(requests[number], start)], profile)
        seconds[number] = time.process_time() - began
        if not isinstance(result, MarkedImage):
            raise SystemExit(f"slice {number}: {result}")
        if keyed and start is None and result.texture is not None:
            textures.keep(SlicePlace((), number), Start(result.texture))
        results[number] = result
    numbers = range(len(requests))
    return Way([results[one] for one in numbers], [seconds[one] for one in numbers])


def effect(marker: Marker, requests: Sequence[MarkRequest], ways: dict[str, Way], profile: ModalityProfile) -> None:
    """Tell what networks make of the marked slices."""
    members, judge = marker._surrogates(profile, 1), load_judge(1)
    clean = [display_image(request) for request in requests]
    shown = {"clean": clean} | {
        name: [display_image(request, one.image) for request, one in zip(requests, way.results, strict=True)]
        for name, way in ways.items()
    }
    with torch.no_grad():
        held = [consensus(_seen(one), members, profile.tasks) for one in clean]
        for number, member in enumerate(members):
            row = []
            for name, images in shown.items():
                lead, other = [], []
                for z, image in enumerate(images):
                    output, share = member.net(_seen(image, member.input_size)), held[z][number]
                    lead.append(float(margins(output, share)))
                    other += [int(output.logits[task].argmax()) != int(one.argmax()) for task, one in share.items()]
                row.append(f"{name} {np.mean(lead):6.2f} ({np.mean(other):.2f})")
            print(f"{member.name:28} margin (answers otherwise): {', '.join(row)}", flush=True)
    before = judge.judge(np.stack(clean))
    row = []
    for name, images in shown.items():
        after = [judge.judge(one[None], task=verdict.task)[0] for one, verdict in zip(images, before, strict=True)]
        lead = [
            float(judge.margin_for(one[None], np.array([verdict.class_index]), verdict.task)[0])
            for one, verdict in zip(images, before, strict=True)
        ]
        other = np.mean([one.class_index != two.class_index for one, two in zip(before, after, strict=True)])
        row.append(f"{name} {np.mean(lead):6.2f} ({other:.2f})")
    print(f"{'held out: judge':28} margin (answers otherwise): {', '.join(row)}", flush=True)


def _seen(image: np.ndarray, side: int = 0) -> torch.Tensor:
    """Return (1, 1, h, w) of a display image (H, W); side: of the square that it is scaled to."""
    plane = torch.from_numpy(np.ascontiguousarray(image))[None, None]
    return resize(plane, side, side) if side else plane


def picture(path: Path, requests: Sequence[MarkRequest], ways: dict[str, Way]) -> None:
    """Write five neighbours from a key slice on: clean, each way, and each way's change ten times enlarged."""
    chosen = range(min(SHOWN, len(requests)))
    clean = [display_image(requests[one]) for one in chosen]
    rows = [clean]
    for way in ways.values():
        rows.append([display_image(requests[one], way.results[one].image) for one in chosen])
    for way in ways.values():
        after = [display_image(requests[one], way.results[one].image) for one in chosen]
        rows.append([0.5 + 10.0 * (one - two) for one, two in zip(after, clean, strict=True)])
    plane = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(np.rint(np.clip(plane, 0.0, 1.0) * 255.0).astype(np.uint8)).save(path)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--slices", type=int, default=40)
    parser.add_argument("--tier", default="notice")
    parser.add_argument("--steps", type=int, default=MarkSettings().steps)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.folder or shared_folder() / "data" / "dicom" / "series_mr_brain"
    requests, profile = requests_of_folder(folder, arguments.slices)
    marker = Marker(MarkSettings(tier=arguments.tier, steps=arguments.steps, device="cpu"))
    marker.mark([replace(requests[0], begin=None)], profile)  # reads the weights
    ways = {name: marked(marker, requests, profile, name == "key") for name in ("key", "own")}
    print(f"{len(requests)} slices of {profile.name}, {arguments.tier}, {arguments.steps} steps")
    for name, way in ways.items():
        keys = [one for one, result in zip(way.seconds, way.results, strict=True) if not result.has_begun]
        others = [one for one, result in zip(way.seconds, way.results, strict=True) if result.has_begun]
        told = f", from themselves {np.mean(keys):.2f}" + (f", begun {np.mean(others):.2f}" if others else "")
        worst = min(one.quality.psnr for one in way.results)
        shown = np.stack([display_image(request) for request in requests])
        after = np.stack([display_image(one, result.image) for one, result in zip(requests, way.results, strict=True)])
        print(
            f"{name}: {np.mean(way.seconds):.2f} CPU seconds a slice{told}; PSNR at least {worst:.1f} dB; "
            f"flicker {flicker(shown, after):.3f}",
            flush=True,
        )
    print(f"ratio of CPU seconds, own to key: {np.mean(ways['own'].seconds) / np.mean(ways['key'].seconds):.1f}")
    effect(marker, requests, ways, profile)
    if arguments.picture:
        picture(arguments.picture, requests, ways)


if __name__ == "__main__":
    main()
