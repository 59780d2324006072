"""Train the shipped generators on half A of the open sets, against the shipped surrogate packs.

    python -m gateway.training.shipped_generators --pack gray --out DIR [--images N] [--steps N] [--pairs N]
        [--members N] [--threads N]

Drafts ``--images`` images of every set (cached in DIR as ``SET-drafted.safetensors``), trains with a checkpoint
(``PACK.ckpt``) that a run started again goes on from, then writes ``PACK.safetensors``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from gateway.errors import ConfigError
from gateway.mark import MarkRequest, ModalityProfile, load_packs, load_profiles
from gateway.mark.methods.generator_net import save_generator
from gateway.mark.surrogates.packs import Surrogate
from gateway.mark.surrogates.store import write_whole
from gateway.training.drafts import DraftedImages, draft_images
from gateway.training.generator import Plan, Step, train_generator
from gateway.training.open_sets import OPEN_SETS, load_train, shared_folder

log = logging.getLogger("gateway.training.shipped_generators")

PROFILES = {
    "brain_tumor": "brain-mr",
    "breast_us": "us",
    "chest_xray": "cr-dx",
    "dermoscopy": "dermoscopy",
    "fundus_dr": "fundus",
}
"""Open set -> modality profile."""
SETS = {
    pack: tuple(name for name, one in OPEN_SETS.items() if one.channels == channels)
    for pack, channels in (("gray", 1), ("rgb", 3))
}
"""Pack -> the open sets of its kind of image."""
SIDE = 256
COLUMNS = ("clean", "amplitude", "offset", "direction", "blanked")
CPU = torch.device("cpu")
_NO_KEY = bytes(32)  # drafts draw keys of their own


def drafted_images_of(
    name: str,
    root: Path,
    count: int,
    profile: ModalityProfile,
    surrogates: tuple[Surrogate, ...],
    weights: str,
    cache: Path,
) -> DraftedImages:
    """Return the drafts of at most ``count`` images that the packs learnt from, from the cache where they are there.

    ``weights``: the digest of the surrogates' files.

    Raises
    ------
    ConfigError
        ``bad-checkpoint`` for a cache that is damaged, or of another number of images or other networks (one that does
        not say is believed).
    """
    run = f"{count} images of {SIDE}, networks {weights}"
    if not cache.is_file():
        images = load_train(root, name, "A", "train", SIDE).images
        chosen = np.random.default_rng(2026).permutation(len(images))[:count]
        began = time.monotonic()
        requests = [MarkRequest(np.ascontiguousarray(images[index]), _NO_KEY) for index in chosen]
        made = draft_images(requests, profile, surrogates, CPU, side=SIDE)
        write_whole(cache, {name: getattr(made, name) for name in COLUMNS}, {"run": run})
        log.info("%s: %d drafts in %.0f s", name, len(made), time.monotonic() - began)
    hint = "delete it to start again, or give another --out"
    try:
        with safe_open(str(cache), framework="pt") as file:
            of_another = (file.metadata() or {}).get("run", run) != run
            columns = [file.get_tensor(key) for key in COLUMNS]
    except (SafetensorError, OSError):
        raise ConfigError("bad-checkpoint", f"{cache} holds no drafts, or is damaged", hint) from None
    if of_another:
        raise ConfigError("bad-checkpoint", f"{cache} is of a run with other images or networks", hint)
    return DraftedImages(profile.tasks, profile.chroma, *columns)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", choices=sorted(SETS), required=True)
    parser.add_argument("--data", type=Path, help="folder that holds open and data; default: MIAD_DATA")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=200, help="of every set, at most")
    parser.add_argument("--steps", type=int, default=Plan().steps)
    parser.add_argument("--pairs", type=int, default=Plan().pairs, help="images a step, each with two keys")
    parser.add_argument("--members", type=int, default=Plan().members, help="surrogates a step")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    root = shared_folder(arguments.data)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    pack, sets, profiles = load_packs()[arguments.pack], SETS[arguments.pack], load_profiles()
    arguments.out.mkdir(parents=True, exist_ok=True)
    surrogates = pack.load(CPU)
    weights = hashlib.sha256(b"".join(file.read_bytes() for file in pack.files)).hexdigest()
    drafted = [
        drafted_images_of(
            name,
            root,
            arguments.images,
            profiles[PROFILES[name]],
            surrogates,
            weights,
            arguments.out / f"{name}-drafted.safetensors",
        )
        for name in sets
    ]
    began = time.monotonic()
    told: list[Step] = []

    def report(step: Step) -> None:
        told.append(step)
        if len(told) == 50:
            mean = {name: float(np.mean([getattr(one, name) for one in told])) for name in ("margin", "correlation")}
            log.info("step %d/%d %s %.0f s", step.number, step.total, json.dumps(mean), time.monotonic() - began)
            told.clear()

    plan = Plan(steps=arguments.steps, pairs=arguments.pairs, members=arguments.members)
    net = train_generator(drafted, surrogates, plan, arguments.out / f"{arguments.pack}.ckpt", report)
    tasks = sorted({task for one in drafted for task in one.tasks})
    names = sorted({PROFILES[name] for name in sets})
    extra = {"steps": str(plan.steps), "half": "A", "surrogates": pack.name}
    save_generator(net, arguments.out / f"{arguments.pack}.safetensors", tasks, names, extra)
    log.info("%s done", arguments.pack)


if __name__ == "__main__":
    main()
