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
from gateway.commands.output import progress_bar, say, show_facts, show_json, show_text

if TYPE_CHECKING:
    from gateway.files import FileResult

Paths = Annotated[list[Path], typer.Argument(exists=True, metavar="PATH...", help="DICOM files, or folders of them.")]
Out = Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder for the files that come out.")]

DONE = ("marked", "remapped", "restored")
LISTED = 20  # so many files are listed one by one; of more, only those that were not done


def protect(paths: Paths, out: Out, config: LocalConfigFile = None, as_json: AsJson = False) -> None:
    """Mark DICOM files and seal their originals, as the network path does; the given files stay as they are."""
    settings = read_config(config)
    from gateway.files import find_files, protect_files

    _report("protecting", protect_files(settings, paths, out), len(find_files(paths)), as_json)


def restore(paths: Paths, out: Out, config: LocalConfigFile = None, as_json: AsJson = False) -> None:
    """Restore the exact originals of marked DICOM files; needs the private key."""
    settings = read_config(config)
    from gateway.files import find_files, restore_files

    _report("restoring", restore_files(settings, paths, out), len(find_files(paths)), as_json)


def explain(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="A DICOM file.")],
    config: LocalConfigFile = None,
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


def _report(what: str, results: Iterable[FileResult], total: int, as_json: bool) -> None:
    """Show each result as it comes (JSON) or all of them at the end (text), then leave with the code they call for."""
    seen: list[FileResult] = []
    with progress_bar(what, quiet=as_json) as progress:
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
    if result.outcome in DONE:
        return f"{result.outcome:8}  {result.path} -> {result.output}"
    return f"{result.outcome:8}  {result.path}: {result.reason} [{result.reason_code}]"
