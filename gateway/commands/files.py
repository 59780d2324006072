"""`protect`, `restore` and `explain`: DICOM files in, DICOM files or an answer out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode, exit_code_of_outcomes
from gateway.commands.options import AsJson, LocalConfigFile, read_config
from gateway.commands.output import say, show_facts, show_json, show_text
from gateway.commands.progress import ProgressShown, Shown, showing_progress

if TYPE_CHECKING:
    from gateway.files.results import FileResult

Paths = Annotated[
    list[Path],
    typer.Argument(exists=True, metavar="PATH...", help="DICOM files, folders of them, DICOMDIRs, zip archives."),
]
Out = Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder for the files that come out.")]

_KEY_HELP = "The private restore key (PEM), instead of a configuration."
_SIGNER_HELP = "A public signing key (PEM) of a gateway whose copies are believed; may be repeated."

DONE = ("marked", "remapped", "restored")
LISTED = 20  # so many files are listed one by one; of more, only those that were not done


def protect(
    paths: Paths,
    out: Out,
    config: LocalConfigFile,
    as_json: AsJson = False,
    progress: ProgressShown = Shown.AUTO,
) -> None:
    """Mark DICOM files and seal their originals, as the network path does; the given files stay as they are.

    Output keeps the names below a given folder; what a DICOMDIR names and what an archive holds is named by its new SOP
    Instance UID. Nothing is overwritten: a taken name gets a number.
    """
    settings = read_config(config)
    from gateway.files.inputs import Inputs
    from gateway.files.protect import protect_files
    from gateway.keys.pair import NOT_PROVED, PROVE, read_proof

    if read_proof(settings.keys) is None:
        say(f"warning: {NOT_PROVED} ({PROVE})")
    with Inputs(paths, settings.ingress.max_instance_mib << 20) as inputs:
        _report("protecting", protect_files(settings, inputs, out), len(inputs.found), as_json, progress)


def restore(
    paths: Paths,
    out: Out,
    config: LocalConfigFile,
    key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=_KEY_HELP)] = None,
    signer: Annotated[list[Path] | None, typer.Option(exists=True, dir_okay=False, help=_SIGNER_HELP)] = None,
    as_json: AsJson = False,
    progress: ProgressShown = Shown.AUTO,
) -> None:
    """Restore the exact originals of marked DICOM files; needs the private key. Names as with protect.

    With --key and --signer no configuration, vault or database is used: for copies that carry their originals.
    """
    if (key is None) != (not signer):
        raise typer.BadParameter("--key and --signer go together")
    settings = read_config(config) if key is None else None
    from gateway.config import Config
    from gateway.files.inputs import Inputs
    from gateway.files.restore import restore_copies, restore_files

    with Inputs(paths, (settings or Config()).ingress.max_instance_mib << 20) as inputs:
        if settings is not None:
            results = restore_files(settings, inputs, out)
        elif key is not None and signer:
            results = restore_copies(key, signer, inputs, out)
        _report("restoring", results, len(inputs.found), as_json, progress)


def explain(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="A DICOM file.")],
    config: LocalConfigFile,
    called_ae: Annotated[str | None, typer.Option("--called-ae", help="As if sent to this AE title.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tell which route, profile and outcome a file would meet, and why; nothing is sealed, marked or sent.

    Exit code 3 when the file would be held or refused on any of the routes shown.
    """
    settings = read_config(config)
    from gateway.explain import explain as explain_file

    explanations = explain_file(settings, file, called_ae)
    for explanation in explanations:
        if as_json:
            show_json(explanation)
        else:
            show_facts({name: value for name, value in asdict(explanation).items() if value not in ("", 0, ())})
            show_text("")
    raise typer.Exit(exit_code_of_outcomes(explanation.outcome for explanation in explanations))


def _report(what: str, results: Iterable[FileResult], total: int, as_json: bool, shown: Shown) -> None:
    """Show each result as it comes (JSON) or all of them at the end (text), then leave with the code they call for."""
    seen: list[FileResult] = []
    with showing_progress(what, shown, as_json=as_json) as progress:
        for result in results:
            seen.append(result)
            progress(len(seen), total)
            if as_json:
                show_json(result)
    if not as_json:
        for result in seen:
            if len(seen) <= LISTED or result.outcome not in DONE:
                show_text(_line(result))
    if not seen:
        say("no file found")
        raise typer.Exit(ExitCode.USAGE)
    counted = Counter(result.outcome for result in seen)
    say(", ".join(f"{count} {outcome}" for outcome, count in sorted(counted.items())))
    raise typer.Exit(exit_code_of_outcomes(counted))


def _line(result: FileResult) -> str:
    name = f"{result.path}[{result.member}]" if result.member else str(result.path)
    noted = f"  (noted: {', '.join(result.notes)})" if result.notes else ""
    if result.outcome in DONE:
        return f"{result.outcome:8}  {name} -> {result.output}{noted}"
    return f"{result.outcome:8}  {name}: {result.reason} [{result.reason_code}]{noted}"
