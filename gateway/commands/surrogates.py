"""`miad-gateway surrogates`: train a pack on the site's images, and try one before the gateway depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.options import AsJson
from gateway.commands.output import say, show_json, show_text
from gateway.commands.progress import ProgressShown, Shown, showing_progress
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.training import Trained
    from gateway.training.networks import Epoch

app = typer.Typer(help="The networks that marks are optimised against.", no_args_is_help=True)


@app.command()
def train(
    folder: Annotated[
        Path,
        typer.Argument(
            exists=True,
            file_okay=False,
            help="Images: PNG, JPEG, .npz (key images) or DICOM; a folder per class, or labels.csv, or no labels.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="The pack; a broken run goes on.")],
    nets: Annotated[str, typer.Option(help="Comma-separated families; default: four fine-tuned, two small.")] = "",
    epochs: Annotated[int | None, typer.Option(min=1, max=1000, help="Per network; default: by number of images.")] = (
        None
    ),
    channels: Annotated[int, typer.Option(min=1, max=3, help="1: gray, 3: colour.")] = 1,
    labels: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="CSV: file,label[,group]; files below FOLDER.")
    ] = None,
    pseudo: Annotated[bool, typer.Option("--pseudo", help="Leave labels aside: clusters are classes.")] = False,
    clusters: Annotated[int | None, typer.Option(min=2, max=64, help="How many clusters.")] = None,
    task: Annotated[str, typer.Option(help="Name of the question; default: the folder's name.")] = "",
    limit: Annotated[int, typer.Option(min=8, help="Images to use at most.")] = 6000,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: torch's own choice.")] = 0,
    as_json: AsJson = False,
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Train a surrogate pack; interrupted, the same command goes on and ends with the same weights."""
    if channels == 2:
        raise ConfigError("bad-setting", "--channels: must be 1 or 3")
    if pseudo and labels is not None:
        raise ConfigError("bad-setting", "--pseudo and --labels exclude each other")
    import torch

    from gateway.training import SITE_NETS, Plan, read_pictures, train_pack
    from gateway.training.pack import check_nets, task_name

    chosen = tuple(name.strip() for name in nets.split(",") if name.strip()) or SITE_NETS
    check_nets(chosen)
    if threads:
        torch.set_num_threads(threads)
    with showing_progress("reading", shown, as_json=as_json) as progress:
        pictures = read_pictures(folder, channels, labels, pseudo, limit, progress)
    kind = "with labels" if pictures.labels is not None else "without labels: clusters are the classes"
    say(f"{len(pictures.images)} images {kind}")
    for code, count in sorted(pictures.skipped.items()):
        say(f"{count} left out: {code}")
    plan = Plan(channels, task_name(task or folder.resolve().name), chosen, epochs, clusters)
    with showing_progress("training", shown, as_json=as_json) as progress:

        def report(net: str, epoch: Epoch) -> None:
            progress(chosen.index(net) * epoch.total + epoch.number, len(chosen) * epoch.total)
            if as_json:
                show_json({"event": "epoch", "net": net, **vars(epoch)})

        def done(trained: Trained) -> None:
            if as_json:
                show_json({"event": "net", **vars(trained)})
            else:
                say(f"{trained.net}: {trained.told()}, {trained.seconds:.0f} s")

        description = train_pack(pictures, out, plan, report, done)
    if as_json:
        show_json({"event": "pack", "pack": description, "images": len(pictures.images), "task": plan.task})
    else:
        show_text(str(description))
    say(f"fill in the licence in {description.with_name('card.md')}, then name the pack in [[surrogates]]")


@app.command()
def check(
    pack: Annotated[Path, typer.Argument(help="The pack description (TOML).")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Load every network of a pack and show it a picture, as the worker does."""
    from gateway.mark.device import resolve_device
    from gateway.mark.surrogates.foreign import read_pack

    for member in read_pack(pack, pack.parent.name or "pack").check(resolve_device(device)):
        tasks = {task: list(names) for task, names in member.net.tasks.items()}
        if as_json:
            show_json({"name": member.name, "input_size": member.input_size, "tasks": tasks})
        else:
            show_text(f"{member.name}  {member.input_size} px  {', '.join(tasks)}")
    say(f"{pack}: all right")
