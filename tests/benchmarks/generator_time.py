"""Where the time of one slice in mode ``generator`` goes.

    python -m tests.benchmarks.generator_time FILE [--side 512] [--threads 1] [--repeat 5]

FILE is a generator for gray images, from ``miad-gateway train-mark``. The slice is a phantom in profile ``brain-mr``.
Printed are CPU seconds (all threads together) and wall seconds of the network alone, of the draft (checks, saliency,
lettering, limits), and of the whole mark; the median of several.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gateway.mark import Marker, MarkRequest, MarkSettings
from gateway.mark.methods.generator_net import generate_texture, load_generator
from plugins.modalities import brain_mr
from plugins.surrogates import gray
from tests.support.mark.samples import KEY, gray8

CPU = torch.device("cpu")


def median_times(action: Callable[[], object], repeat: int) -> tuple[float, float]:
    """Return the median (CPU seconds, wall seconds) of some runs, after one that is not counted."""
    action()
    times = []
    for _ in range(repeat):
        began = time.process_time(), time.perf_counter()
        action()
        times.append((time.process_time() - began[0], time.perf_counter() - began[1]))
    cpu, wall = np.median(np.array(times), axis=0)
    return float(cpu), float(wall)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = MarkSettings(mode="generator", device="cpu", generator=arguments.file)
    marker = Marker(settings, packs=[gray.PACK])
    request = MarkRequest(gray8(arguments.side, arguments.side), KEY, position=0.0)
    generator = load_generator(arguments.file, CPU)
    side = min(arguments.side, brain_mr.PROFILE.texture_side)
    picture = torch.rand(1, 1, side, side)
    parts = {
        f"network alone ({side} px grid)": lambda: generate_texture(generator, picture, picture, picture, [KEY]),
        "draft": lambda: marker._draft(request, brain_mr.PROFILE),
        "whole mark": lambda: marker.mark([request], brain_mr.PROFILE),
    }
    print(f"one {arguments.side}x{arguments.side} slice, {arguments.threads} thread(s), median of {arguments.repeat}")
    for name, action in parts.items():
        cpu, wall = median_times(action, arguments.repeat)
        print(f"{name:32} {cpu:.3f} s CPU  {wall:.3f} s wall", flush=True)


if __name__ == "__main__":
    main()
