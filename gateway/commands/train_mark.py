"""`miad-gateway train-mark`: a site's own generator, trained on a folder of its images: DICOM, NumPy, PNG or JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.options import AsJson, Overwrite, check_outputs
from gateway.commands.output import say, show_json, show_text
from gateway.commands.packs import OwnPacks, read_own_packs, tell_networks
from gateway.commands.progress import ProgressShown, Shown, showing_progress
from gateway.errors import ConfigError, MarkError

if TYPE_CHECKING:
    import torch

    from gateway.mark import ModalityProfile
    from gateway.mark.surrogates.packs import Surrogate, SurrogatePack
    from gateway.training.generator import Step

_TELL_EVERY = 10
"""Steps between two lines of JSON."""


def train_mark(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Images at any depth: DICOM, .npz (key images, as for mark), PNG, JPEG."
        ),
    ],
    profile: Annotated[str, typer.Option(help="Modality profile, e.g. brain-mr, mr, ct, cr-dx, fundus, dermoscopy.")],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", dir_okay=False, help="The generator (.safetensors); a broken run goes on."),
    ],
    steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="Training steps of 8 images.")] = 1000,
    channels: Annotated[int | None, typer.Option(min=1, max=3, help="1: gray, 3: colour; default: the profile's.")] = (
        None
    ),
    own_packs: OwnPacks = None,
    limit: Annotated[int, typer.Option(min=1, help="Images to use at most.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and of all that is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Train the network of mode generator on images without labels; the same command again goes on where it stopped."""
    from gateway.mark import MarkRequest, load_profiles
    from gateway.mark.device import resolve_device
    from gateway.mark.methods.generator_net import save_generator
    from gateway.training.drafts import draft_images
    from gateway.training.generator import Plan, train_generator
    from gateway.training.pictures import read_pictures

    profiles = load_profiles()
    if profile not in profiles:
        raise ConfigError("no-profile", f"no modality profile {profile!r}", f"there are {', '.join(sorted(profiles))}")
    kind, where = profiles[profile], resolve_device(device)
    samples = kind.channels[0] if channels is None else channels
    if samples not in kind.channels:
        raise ConfigError("bad-setting", f"--channels: profile {profile} takes {', '.join(map(str, kind.channels))}")
    if not out.parent.is_dir():
        raise ConfigError("cannot-write", f"cannot write {out}: no such folder", "choose another --out")
    check_outputs({"--out": out}, overwrite=overwrite)
    packs = read_own_packs(own_packs or ())
    surrogates = _surrogates(packs, kind, samples, where)
    networks = tell_networks(surrogates, packs)
    with showing_progress("reading", shown, as_json=as_json) as moved:
        pictures = read_pictures(folder, samples, unlabelled=True, limit=limit, progress=moved)
    for reason, count in sorted(pictures.skipped.items()):
        say(f"{count} left out: {reason}")
    requests = [MarkRequest(image, bytes(32)) for image in pictures.images]  # drafts draw keys of their own
    with showing_progress("drafting", shown, as_json=as_json) as drafted:
        images = draft_images(requests, kind, surrogates, where, seed, progress=drafted)
    say(f"{len(images)} of {len(requests)} images can be marked and are trained on")
    checkpoint = out.with_name(f"{out.name}{_run_of(packs)}.ckpt")
    last: list[Step] = []
    with showing_progress("training", shown, as_json=as_json) as moved:

        def report(step: Step) -> None:
            moved(step.number, step.total)
            last[:] = [step]
            if as_json and (step.number % _TELL_EVERY == 0 or step.number == step.total):
                show_json({"event": "step", **vars(step)})

        net = train_generator([images], surrogates, Plan(steps=steps, seed=seed), checkpoint, report, where)
    about = {"steps": str(steps), "images": str(len(images)), "networks": ", ".join(networks)}
    save_generator(net, out, kind.tasks, (profile,), about)
    checkpoint.unlink(missing_ok=True)
    if as_json:
        show_json(
            {
                "event": "generator",
                "file": out,
                "channels": samples,
                "images": len(images),
                "steps": steps,
                "networks": networks,
            }
        )
    else:
        show_text(str(out))
    if last:
        say(f"last step: mean margin {last[0].margin:.2f} logits, below 0 the surrogates have changed their answers")
    say('name the file on a route: [routes.mark] mode = "generator", generator = "..."; or mark --generator')


def _run_of(own: Sequence[SurrogatePack]) -> str:
    """What tells runs against one pack from those against another, which none goes on with. Packaged: empty."""
    import hashlib

    digest = hashlib.sha256()
    for pack in own:
        for file in pack.files:
            digest.update(file.read_bytes())
    return f".{digest.hexdigest()[:8]}" if own else ""


def _surrogates(
    own: Sequence[SurrogatePack], profile: ModalityProfile, channels: int, device: torch.device
) -> tuple[Surrogate, ...]:
    """The networks of the site's own packs, else of the profile's, that know a task of the profile."""
    from gateway.mark import load_packs
    from gateway.mark.surrogates.packs import select_packs

    offered, names = (own, [pack.name for pack in own]) if own else (load_packs().values(), profile.packs[channels])
    members = [member for pack in select_packs(offered, names, channels) for member in pack.load(device)]
    fitting = tuple(member for member in members if member.asked(profile.tasks))
    if not fitting:
        raise MarkError("no-surrogate", f"no surrogate knows a task of profile {profile.name}")
    return fitting
