"""`miad-gateway simulate`: what the rules would make of objects, without sending them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode, exit_code_of_outcomes
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_table, show_text
from gateway.commands.progress import Progress, ProgressShown, Shown, showing_progress
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.files.inputs import Inputs
    from gateway.simulate import Sample

_TAG_HELP = (
    "A tag of a made object, as Modality=CT or 0018,0015=HEAD; may be repeated. What is not given is a CT image's."
)
Paths = Annotated[
    list[Path] | None,
    typer.Argument(exists=True, metavar="[PATH...]", help="DICOM files, folders of them, DICOMDIRs, zip archives."),
]


def simulate(
    config: ConfigFile,
    paths: Paths = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG=VALUE", help=_TAG_HELP)] = None,
    called_ae: Annotated[str | None, typer.Option("--called-ae", help="As if sent to this AE title only.")] = None,
    calling_ae: Annotated[str, typer.Option("--calling-ae", help="As if sent by this AE title.")] = "",
    address: Annotated[str, typer.Option("--address", help="As if it came from this IP address.")] = "",
    at: Annotated[
        str, typer.Option("--at", metavar="TIME", help="As if received then, as 2026-11-29T22:30; now without it.")
    ] = "",
    as_json: AsJson = False,
    shown: ProgressShown = Shown.AUTO,
) -> None:
    """Tell for each object and route which rule decides, what would happen, and why; from headers, nothing is sent.

    Of one file `explain` tells more. Exit code 3 when something would be held or refused.
    """
    from gateway.config import Source
    from gateway.files.inputs import Inputs
    from gateway.protect import Arrival
    from gateway.simulate import simulate as simulated

    source = Source.read(config)
    arrival = Arrival(calling_ae, address, _moment(at))
    if bool(paths) == bool(tags):
        raise ConfigError("no-choice", "name files, or give --tag", "as --tag Modality=MR --tag BodyPartExamined=HEAD")
    outcomes: Counter[str] = Counter()
    rows: list[list[str]] = []
    with (
        Inputs(paths or [], source.parse().ingress.max_instance_mib << 20) as inputs,
        showing_progress("reading", shown if paths else Shown.NONE, as_json=as_json) as moved,
    ):
        samples = _counted(_samples(inputs, tags or []), len(inputs.found), moved)
        for one in simulated(source, samples, arrival, called_ae):
            outcomes[one.outcome] += 1
            if as_json:
                show_json(one)
                continue
            why = " ".join(filter(None, [one.code, f"({one.reason})" if one.reason else ""]))
            rows.append([one.object, one.route, one.outcome, one.decided_by, why, "; ".join(one.rules)])
    if not as_json:
        show_table(["OBJECT", "ROUTE", "WOULD BE", "BY", "WHY", "RULES"], rows)
        show_text("")
    say(", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or "nothing was found")
    raise typer.Exit(exit_code_of_outcomes(outcomes) if outcomes else ExitCode.USAGE)


def _samples(inputs: Inputs, tags: list[str]) -> Iterator[Sample]:
    from gateway.simulate import Sample, made_of

    if tags:
        yield Sample("tags", header=made_of(tags))
    for found in inputs.found:
        yield Sample(f"{found.path}{f' {found.member}' if found.member else ''}", found.open)


def _counted(samples: Iterator[Sample], total: int, moved: Progress) -> Iterator[Sample]:
    for done, sample in enumerate(samples, start=1):
        yield sample
        moved(done, total)


def _moment(text: str) -> float:
    if not text:
        return time.time()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        raise ConfigError("bad-time", f"{text!r} is no time", "as 2026-11-29T22:30, or with a zone +01:00") from None
