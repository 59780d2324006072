"""Where the CPU time of marking one slice goes, part by part, and what another checkout of the gateway takes.

    python -m tests.benchmarks.mark_time [--mode generator] [--tier notice] [--side 512] [--slices 1] [--steps 40]
        [--rounds 5] [--threads 1] [--against CHECKOUT]

Slices are phantoms of ``brain-mr`` (8 bits) and of ``ct`` (16 bits), neighbours of one series where there are several.
Printed are CPU seconds a slice (all threads together): *to stored values* is what has passed when a slice's stored
values are there, the parts of it follow; *with figures* includes those that are only reported. The best round counts.
Both checkouts are measured in turn, each round in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PARTS = {
    "display": ("gateway.mark.visibility.display", "display_of"),
    "foreground": ("gateway.mark.visibility.region", "find_foreground"),
    "page or not": ("gateway.mark.visibility.ground", "text_of"),
    "zones": ("gateway.mark.drafting", "zones_of"),
    "lettering": ("gateway.mark.placement.letters", "Letterer.in_air"),
    "lettering over anatomy": ("gateway.mark.placement.letters", "Letterer.write"),
    "saliency": ("gateway.mark.drafting", "Drafter._saliency"),
    "threshold": ("gateway.mark.visibility.threshold", "visibility_threshold"),
    "first direction": ("gateway.mark.methods.strong", "first_direction"),
    "generator's network": ("gateway.mark.methods.generator_net", "generate_texture"),
    "steps": ("gateway.mark.methods.strong", "optimise_texture"),
    "quiet": ("gateway.mark.visibility.quiet", "quiet"),
    "rounding": ("gateway.mark.visibility.budget", "fit_to_floor"),
    "figures": ("gateway.mark.visibility.quality", "measure"),
}
"""Part -> module and function; what a part calls that is a part itself counts there alone."""


class Clock:
    """CPU seconds of each part, without the parts inside it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._local = threading.local()

    def watch(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, its time counted as ``name``."""

        def timed(*given: Any, **named: Any) -> Any:
            inner, self._local.inner = getattr(self._local, "inner", 0.0), 0.0
            began = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                spent = time.thread_time() - began
                self.seconds[name] += spent - self._local.inner
                self._local.inner = inner + spent

        return timed


def watched(clock: Clock) -> None:
    """Put a watch around every part, wherever it was imported to."""
    for name, (module, path) in PARTS.items():
        owner: Any = importlib.import_module(module)
        *inside, last = path.split(".")
        for one in inside:
            owner = getattr(owner, one, None)
        found = getattr(owner, last, None)
        if found is None:  # the other checkout has no such part
            continue
        timed = clock.watch(name, found)
        if inside:
            setattr(owner, last, timed)
            continue
        for other in list(sys.modules.values()):
            if getattr(other, last, None) is found:
                setattr(other, last, timed)


def requests_of(kind: str, side: int, count: int) -> list[Any]:
    """Return neighbouring slices of a phantom."""
    from gateway.mark import MarkRequest
    from tests.support.mark.samples import KEY, gray8, phantom

    if kind == "brain-mr":
        return [MarkRequest(gray8(side, side, one), KEY, position=3.0 * one) for one in range(count)]
    made = []
    for one in range(count):
        random = np.random.default_rng(one)
        body = phantom(side, side, one)
        units = np.where(body > 0, 400.0 * body - 120.0, -1000.0) + random.normal(0.0, 12.0, body.shape)
        image = np.clip(np.rint(units), -1024, 3000).astype(np.int16)
        made.append(
            MarkRequest(
                image,
                KEY,
                position=3.0 * one,
                display=(-160.0, 240.0),
                slope=1.0,
                intercept=0.0,
                other_windows={"lung": (-1350.0, 150.0), "bone": (-650.0, 1350.0)},
            )
        )
    return made


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """CPU seconds a slice of each part, by kind of image, by the gateway that this process imports."""
    import torch

    from gateway.mark import MarkedImage, Marker, MarkSettings
    from plugins.modalities import brain_mr, ct
    from plugins.surrogates import gray

    torch.set_num_threads(arguments.threads)
    settings = MarkSettings(mode=arguments.mode, tier=arguments.tier, steps=arguments.steps, device="cpu")
    marker = Marker(settings, packs=[gray.PACK])
    for holder in (marker, marker._method):
        if hasattr(holder, "_parallel_map"):
            holder._parallel_map = map  # a part's time is that of the thread that calls it
    clock = Clock()
    watched(clock)
    found: dict[str, dict[str, float]] = {}
    for profile in (brain_mr.PROFILE, ct.PROFILE):
        requests = requests_of(profile.name, arguments.side, arguments.slices)
        marker.mark(requests[:1], profile)
        clock.seconds.clear()
        began = time.process_time()
        results = marker.mark(requests, profile)
        spent = time.process_time() - began
        eager = clock.seconds.pop("figures", 0.0)
        began = time.process_time()
        for one in results:
            if not isinstance(one, MarkedImage):
                raise SystemExit(f"{profile.name}: {one}")
            one.quality.as_dict()
        after = time.process_time() - began
        parts = {name: clock.seconds[name] / len(requests) for name in PARTS if clock.seconds[name] > 0.0}
        whole = (spent - eager) / len(requests)
        rest = {"the rest": whole - sum(parts.values()), "figures": (eager + after) / len(requests)}
        found[profile.name] = {"to stored values": whole, **parts, **rest, "with figures": whole + rest["figures"]}
    return found


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", default="generator", choices=("strong", "generator"))
    parser.add_argument("--tier", default="notice")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout, with its own .venv or the same packages")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments)))
        return
    checkouts = {"here": Path(__file__).resolve().parents[2]}
    if arguments.against:
        checkouts["there"] = arguments.against.resolve()
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in checkouts}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            rounds[name].append(_child(checkout, sys.argv[1:]))
    best = {
        name: {kind: min((one[kind] for one in found), key=lambda one: one["to stored values"]) for kind in found[0]}
        for name, found in rounds.items()
    }
    print(f"{arguments.mode}, {arguments.tier}: {arguments.slices} slice(s) of {arguments.side}x{arguments.side}")
    for kind in best["here"]:
        here, there = best["here"][kind], best.get("there", {}).get(kind, {})
        print(f"{kind}: CPU milliseconds a slice, {'here, there' if there else 'here'}")
        for part in [*here, *(part for part in there if part not in here)]:
            beside = f" {1000 * there.get(part, 0.0):9.1f}" if there else ""
            print(f"  {part:24} {1000 * here.get(part, 0.0):9.1f}{beside}", flush=True)


def _child(checkout: Path, arguments: list[str]) -> dict[str, dict[str, float]]:
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python) if python.exists() else sys.executable, __file__, "--child", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
