"""Victims with pretrained backbones of families that no pack has, fine-tuned on half B: one network for all open sets.

    python -m tests.benchmarks.mark.pretrained_victims [--cache DIR] [--packages DIR] [--families inceptionv3,clip-b16]
                                                       [--threads N]

Fine-tuned as the surrogates are (``gateway.training.finetune``), stopped on the validation part of half B, resumable
every epoch. The command tells each network's right answers on validation and test images. The benchmark finds the
networks in its cache, and trains them there where they are missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from gateway.mark.surrogates.nets import MultiTaskNet
from gateway.mark.surrogates.store import load_net, save_net
from gateway.training.figures import Figure
from gateway.training.finetune import FINE_TUNINGS, JUDGE, FineTuning, Round, fine_tune
from gateway.training.networks import pool_of
from gateway.training.open_sets import OPEN_SETS, load_test, load_train, shared_folder
from gateway.training.pretrained import load_backbone
from gateway.training.shipped_packs import MARGIN, kept_pool, right_answers
from tests.benchmarks.mark.data import Sample
from tests.benchmarks.mark.nets_victims import VICTIM_FAMILIES
from tests.benchmarks.mark.store import digest
from tests.benchmarks.mark.victim_sources import PRETRAINED_VICTIMS, convert_victim

VERSION = 1
"""Raised when training changes what comes out for the same recipe."""
TUNINGS = {
    one.family: one
    for one in (
        JUDGE,
        FINE_TUNINGS["vit-s14"],
        FineTuning("inceptionv3", 10, 3e-4, trained=5, side=299),
        FineTuning("xception", 8, 3e-4, trained=9, views=2, side=299),
        FineTuning("clip-b16", 5, 1e-4, trained=3, views=2),
    )
}
"""Family -> recipe: as much as two cores do in an hour or two; of InceptionV3 the last block has collapsed, so that
what learns reaches further down."""


def victim_path(family: str, cache: Path, older: str | None = None) -> Path:
    """Return where the finished victim of a family is kept, of all open sets or of an older one."""
    return cache / f"{older or 'open'}-{family}-{digest([VERSION, asdict(TUNINGS[family])])}.safetensors"


def pretrained_victim(
    family: str,
    data: Path,
    cache: Path,
    packages: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    older: Sample | None = None,
) -> Path:
    """Return the file of a victim with heads for all open sets, from the cache or trained now.

    Parameters
    ----------
    family
        a key of ``TUNINGS``.
    data
        folder of all data.
    cache
        folder of finished victims.
    packages
        folder of packages; default: in the cache.
    say
        told every epoch.
    older
        training images of an older set: the victim is then one of that set alone.

    Raises
    ------
    ConfigError
        those of ``convert_victim``, ``shared_folder`` and ``fine_tune``.
    """
    tuning = TUNINGS[family]
    path = victim_path(family, cache, None if older is None else older.name)
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    held = None
    if older is None:
        root = shared_folder(data)
        pool, held = (kept_pool(root, "B", part, tuning.side + MARGIN, cache) for part in ("train", "validation"))
    else:
        pool = pool_of(older.name, older.classes, older.images, older.labels)
    torch.manual_seed(0)
    channels = 3 if older is None else older.channels
    net = MultiTaskNet(family, channels, pool.classes, shared=True, families=VICTIM_FAMILIES)
    load_backbone(net, convert_victim(family, packages or cache / "packages", cache / "backbones"))

    def told(done: Round) -> None:
        figures = f"loss {done.loss:.3f}, validation loss {done.held_loss:.3f} accuracy {done.held_accuracy:.3f}"
        say(f"{family} epoch {done.number}/{done.total} {figures} {done.seconds:.0f} s")

    checkpoint = path.with_suffix(".checkpoint")
    trained = fine_tune(net, tuning, pool, held, checkpoint, told)
    save_net(trained, path, tuning.side, {"half": "B"}, "float32")
    checkpoint.unlink(missing_ok=True)
    return path


def main() -> None:
    """Command line: see the module's docstring."""
    from tests.benchmarks.mark.victims import cache_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="folder of trained networks (default: in the user's cache)")
    parser.add_argument("--packages", type=Path, help="folder of packages (default: in the cache)")
    parser.add_argument("--families", default=",".join(TUNINGS), help=f"of {', '.join(PRETRAINED_VICTIMS)}")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    root, cache = shared_folder(), cache_folder(arguments.cache)
    for family in arguments.families.split(","):
        path = pretrained_victim(family, root, cache, arguments.packages, lambda text: print(text, flush=True))
        net, side = load_net(path, torch.device("cpu"), VICTIM_FAMILIES)
        parts = {
            "validation": {name: load_train(root, name, "B", "validation", side + MARGIN) for name in OPEN_SETS},
            "test": {name: load_test(root, name, side + MARGIN) for name in OPEN_SETS},
        }
        for part, sets in parts.items():
            right = right_answers(net, sets, side)
            print(
                f"{family} {part}: {', '.join(f'{name} {Figure(*pair)}' for name, pair in right.items())}", flush=True
            )


if __name__ == "__main__":
    main()
