"""`miad-gateway init`: a site's first configuration, its keys, and certificates where it has none."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from gateway.commands.certificates import OWN, Wanted, binding, make_certificates
from gateway.commands.exits import ExitCode
from gateway.commands.keys import tell_of_keys
from gateway.commands.output import say
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.config.starter import Node, Start

MAKE, NONE = "make", "no"

Answer = TypeVar("Answer")


def init(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Where to; made when missing.")] = Path("."),
    site: Annotated[str | None, typer.Option(help="A short name of the site, lower case.")] = None,
    archive: Annotated[str | None, typer.Option(metavar="AE@ADDRESS", help="The archive that sends.")] = None,
    destination: Annotated[
        str | None, typer.Option(metavar="AE@HOST:PORT", help="Who gets marked copies, outside.")
    ] = None,
    workstation: Annotated[
        str | None,
        typer.Option(metavar="AE@ADDRESS[:PORT]", help="Who may get originals; PORT for C-MOVE; 'no': nobody yet."),
    ] = None,
    hosts: Annotated[
        str | None, typer.Option("--host", metavar="HOST[,HOST...]", help="By what names others reach this gateway.")
    ] = None,
    tls: Annotated[
        str | None, typer.Option(metavar="make|FOLDER|no", help="Certificates: new ones, those in a folder, or none.")
    ] = None,
    called_ae: Annotated[str, typer.Option(help="The AE title that the archive will call.")] = "MIAD_GATEWAY",
    port: Annotated[int, typer.Option(min=1, max=65535, help="For the archive.")] = 11112,
    restore_port: Annotated[int, typer.Option(min=1, max=65535, help="For the workstations.")] = 2762,
    page_port: Annotated[int, typer.Option(min=1, max=65535, help="For the status page.")] = 8480,
    archive_tls: Annotated[bool, typer.Option("--archive-tls", help="The archive sends over TLS.")] = False,
    destination_tls: Annotated[bool, typer.Option("--destination-tls", help="The destination takes TLS.")] = False,
    units: Annotated[
        bool, typer.Option("--units", help="For a service and a user a role, as deploy/install.sh sets them up.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Ask nothing: what is not given stands at its default.")
    ] = False,
) -> None:
    """Write gateway.toml, keys and certificates of a new site, from six questions or options. Overwrites nothing."""
    from gateway.config.load import parse_config
    from gateway.config.secret import CREDENTIALS
    from gateway.config.starter import Start, read_node, starter_text

    file = folder / "gateway.toml"
    if file.exists():
        raise ConfigError("config-exists", f"{file} is there already", "change it, or name another folder")
    ask = _Asking(yes)
    name = ask("--site", "1/6  A short name of this site", "site", site, _site_name)
    source = ask(
        "--archive",
        "2/6  The archive, as AE@ADDRESS",
        "ARCHIVE@127.0.0.1",
        archive,
        lambda t: read_node(t, address=True),
    )
    target = ask(
        "--destination",
        "3/6  Who gets marked copies, as AE@HOST:PORT",
        "RESEARCH_PACS@127.0.0.1:11113",
        destination,
        lambda t: read_node(t, port=True),
    )
    station = ask(
        "--workstation",
        "4/6  A workstation that may get originals, as AE@ADDRESS or AE@ADDRESS:PORT (C-MOVE), or no",
        "READING_ROOM@127.0.0.1",
        workstation,
        lambda t: None if t == NONE else read_node(t, address=True),
    )
    here = f"{socket.gethostname()},localhost,127.0.0.1"
    names = ask("--host", "5/6  Names or addresses by which they reach this gateway", here, hosts, _hosts)
    source_of_tls = ask(
        "--tls",
        "6/6  TLS: make (new certificates), a folder that has them, or no",
        MAKE,
        tls,
        lambda t: _tls(t, folder),
    )
    if source_of_tls == NONE and (archive_tls or destination_tls):
        raise ConfigError("no-tls", "--archive-tls and --destination-tls want certificates", "say --tls make")

    place = "" if source_of_tls == NONE else ("tls" if source_of_tls == MAKE else str(Path(source_of_tls).resolve()))
    draft = Start(
        name, source, target, station, place, 'san = ["x"]', called_ae, port, restore_port, archive_tls,
        destination_tls, page_port, units,
    )  # fmt: skip
    parse_config(starter_text(draft), file)  # a wrong answer is told of before anything is made
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_keys(folder / "keys")
    if source_of_tls == MAKE:
        _make_tls(folder / "tls", names, draft)
    bound = _bind(folder / place, station) if place and station else ""
    _write(file, starter_text(replace(draft, binding=bound)))
    if units:  # as a role's unit is told where its keys are
        os.environ[CREDENTIALS] = str((folder / "keys").resolve())
    _check(file)
    _tell(file, draft, names)


class _Asking:
    """Asks for what no option gave; without a terminal it says which option is missing."""

    def __init__(self, yes: bool) -> None:
        self._yes = yes

    def __call__(
        self, option: str, question: str, default: str, given: str | None, read: Callable[[str], Answer]
    ) -> Answer:
        if given is not None or self._yes:
            return read(given if given is not None else default)
        if not sys.stdin.isatty():
            raise ConfigError("no-terminal", f"{option} is missing and nobody can be asked", f"give {option}, or --yes")
        while True:
            try:
                return read(typer.prompt(question, default=default, err=True).strip())
            except ConfigError as error:
                say(f"{error.message}: {error.hint}")


def _site_name(text: str) -> str:
    from gateway.config.models import Site

    try:
        return Site(name=text).name
    except ValueError:
        message = f"{text!r} is no name"
        raise ConfigError("bad-name", message, "1 to 32 lower-case letters, digits, - or _") from None


def _hosts(text: str) -> tuple[str, ...]:
    from gateway.keys.certificates import general_name

    hosts = tuple(host.strip() for host in text.split(",") if host.strip())
    for host in hosts:
        general_name(host)
    if not hosts:
        raise ConfigError("bad-name", "no name is given", "write the name that others connect to")
    return hosts


def _tls(text: str, folder: Path) -> str:
    if text in (MAKE, NONE):
        return text
    needed = [Path(text) / name for name in ("restore.pem", "restore.key", "trust")]
    if absent := [path.name for path in needed if not path.exists()]:
        message = f"{text} holds no {', '.join(absent)}"
        hint = "name the files restore.pem, restore.key (and gateway.pem, gateway.key), the authorities trust/"
        raise ConfigError("tls-file-missing", message, hint)
    return text


def _make_keys(folder: Path) -> None:
    from gateway.keys.generate import PRIVATE_NAMES, PUBLIC_NAMES, make_keys

    if all((folder / name).is_file() for name in (*PRIVATE_NAMES, *PUBLIC_NAMES)):
        say(f"{folder}: the keys that are there are taken")
        return
    make_keys(folder)
    tell_of_keys(folder, folder / "audit.jsonl")


def _make_tls(folder: Path, hosts: tuple[str, ...], start: Start) -> None:
    wanted = [Wanted(stem, hosts) for stem in OWN]
    if start.destination_tls and start.units:
        wanted.append(Wanted(start.sending, hosts))
    if start.workstation is not None:
        wanted.append(Wanted(_stem(start.workstation), (start.workstation.host,), for_java=True))
    if start.archive_tls:
        wanted.append(Wanted(_stem(start.archive), (start.archive.host,)))
    if start.destination_tls:
        wanted.append(Wanted(_stem(start.destination), (start.destination.host,)))
    make_certificates(folder, list({one.stem: one for one in wanted}.values()), days=825)


def _stem(node: Node) -> str:
    """An AE title as the name of files: what might mean something in a path becomes _."""
    stem = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in node.ae_title)
    return f"peer_{stem}" if stem.lower() in (*OWN, "ca", "worker") or stem.startswith("-") else stem


def _bind(folder: Path, station: Node) -> str:
    """By its key where its certificate is at hand, else by the address that its certificate has to name."""
    certificate = folder / f"{_stem(station)}.pem"
    return binding(certificate) if certificate.is_file() else f'san = ["{station.host}"]'


def _write(file: Path, text: str) -> None:
    from gateway.keys.generate import sync_folder, write_key_file

    try:
        write_key_file(file, text.encode("utf-8"), 0o644)
    except FileExistsError:
        raise ConfigError("config-exists", f"{file} has come meanwhile", "look whose it is") from None
    sync_folder(file.absolute().parent)


def _check(file: Path) -> None:
    from gateway.config import load_config
    from gateway.preflight import preflight

    findings = preflight(load_config(file))
    for finding in findings:
        say(f"{finding.level}: {finding.where}: {finding.message}" + (f" ({finding.hint})" if finding.hint else ""))
    if any(finding.level == "error" for finding in findings):
        say(f"{file} is written; mend this, then: miad-gateway config check --config {file}")
        raise typer.Exit(ExitCode.USAGE)


def _tell(file: Path, start: Start, hosts: tuple[str, ...]) -> None:
    tls = file.parent / "tls"
    host = hosts[0]
    say(f"{file} is written and passes the check. Back up {file.parent / 'keys'}: without it no original comes back.")
    say("")
    say(f"1. In the archive, add a destination: AE title {start.called_ae}, host {host}, port {start.port}")
    say(f"   {'with TLS' if start.archive_tls else 'without TLS'}; it calls itself {start.archive.ae_title}")
    step = 2
    if start.workstation is not None:
        how = "with TLS" if start.tls else "without TLS"
        say(f"{step}. At {start.workstation.ae_title}, add a Query/Retrieve node: AE title MIAD_RESTORE, host {host},")
        say(f"   port {start.restore_port}, {how}" + (f"; its files: {tls}/{_stem(start.workstation)}.*, {tls}/ca.pem"
            if start.tls == "tls" else ""))  # fmt: skip
        step += 1
    say(f"{step}. miad-gateway echo outside-pacs --config {file}   # does the destination answer?")
    if not start.units:
        step += 1
        say(f"{step}. miad-gateway serve --config {file}")
    say(f"{step + 1}. The flow in a browser on this machine: http://127.0.0.1:{start.page_port}/")
    say(f"   to act there too: miad-gateway page user add NAME --role operator --config {file}")
