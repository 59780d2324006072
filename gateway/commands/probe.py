"""`miad-gateway probe`: what a destination makes of copies, seen by one labelled synthetic instance."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.exits import ExitCode
from gateway.commands.network import destination_of
from gateway.commands.options import AsJson, ConfigFile
from gateway.commands.output import say, show_json, show_table
from gateway.errors import ConfigError, DeliveryError

if TYPE_CHECKING:
    from gateway.config import Config, Destination
    from gateway.probing.compare import Part
    from gateway.probing.instance import Probe

_RETURNED = "What came back of the probe that was sent before, a DICOM file; nothing is sent then."
_ID = "Of the probe that was sent before, as it was printed then."
_QUERY = "Where it is asked for by C-FIND and C-GET, as AE@HOST:PORT; without it, the destination itself."
_MOVE = "A port here to which it sends by C-MOVE: the destination has to know our AE title with this machine and port."


def probe(
    name: Annotated[str, typer.Argument(metavar="DESTINATION", help="By its name in the configuration.")],
    config: ConfigFile,
    returned: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=_RETURNED)] = None,
    probe_id: Annotated[str, typer.Option("--id", metavar="ID", help=_ID)] = "",
    query: Annotated[str, typer.Option("--query", metavar="AE@HOST:PORT", help=_QUERY)] = "",
    move_port: Annotated[int | None, typer.Option(min=1, max=65535, help=_MOVE)] = None,
    patience: Annotated[float, typer.Option(min=0, help="Seconds until it has to be found there.")] = 15,
    as_json: AsJson = False,
) -> None:
    """Send one labelled synthetic instance, fetch it back, and tell whether UIDs, private elements and pixels survive.

    Where the destination gives nothing back, fetch it by its own means and give the file: --returned FILE --id ID.
    Exit code 3 when something does not survive. Delete the probe there afterwards.
    """
    from gateway.config import load_config
    from gateway.dicom.pixels.children.pool import Limits, configure
    from gateway.probing.compare import compare
    from gateway.probing.instance import Probe

    settings = load_config(config)
    destination = destination_of(settings, name)
    configure(Limits.of(settings.codecs))
    if returned is not None:
        if not probe_id:
            raise ConfigError("no-id", "--returned goes with --id", "the id was printed when the probe was sent")
        _show(compare(Probe(probe_id), returned.read_bytes()), as_json)
        return
    made = Probe(secrets.token_hex(16))
    where = _where(destination, query, move_port)
    _send(settings, destination, made)
    say(f"sent: patient id {made.patient_id}, SOP Instance UID {made.uid('SOPInstanceUID')}, id {made.id}")
    try:
        from gateway.probing.fetch import fetch

        data = fetch(where, made, patience)
    except DeliveryError as error:
        say(f"{error} [{error.code}]")
        say(f"fetch it by other means, then: miad-gateway probe {name} --id {made.id} --returned FILE")
        raise typer.Exit(ExitCode.UNREACHABLE) from None
    _show(compare(made, data), as_json)


def _where(destination: Destination, query: str, move_port: int | None):
    from gateway.probing.fetch import Where

    ae, host, port = destination.ae_title, destination.host, str(destination.port)
    if query:
        ae, joined, peer = query.rpartition("@")
        host, colon, port = peer.rpartition(":")
        if not (joined and colon and ae and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise ConfigError("bad-query", f"{query!r} is no AE@HOST:PORT", "as ARCHIVE@10.1.2.3:104")
    return Where(destination, ae, host, int(port), move_port)


def _send(settings: Config, destination: Destination, made: Probe) -> None:
    """As a marked copy would be sent; told of in the audit."""
    import io

    from gateway import service
    from gateway.audit import AuditLog, audited, events
    from gateway.dicom.encoding.syntaxes import EXPLICIT_LITTLE
    from gateway.flow.ports import Outgoing
    from gateway.network.egress import Egress
    from gateway.probing.instance import SOP_CLASS, encoded
    from gateway.protect.recoding import recoded

    data = encoded(made.dataset(settings.site.contact, settings.site.name))
    uid = made.uid("SOPInstanceUID")
    item = Outgoing(
        SOP_CLASS,
        uid,
        EXPLICIT_LITTLE,
        len(data),
        lambda: io.BytesIO(data),
        lambda wanted: recoded(lambda: io.BytesIO(data), EXPLICIT_LITTLE, wanted),
        marked=True,
    )
    audit = AuditLog(service.places(settings).audit("operator"))
    audited(audit, events.PROBE_SENT, "success", destination=destination.name, sop_instance_uid=uid)
    with closing(Egress([destination], audit)) as egress:
        egress.send(destination.name, item)


def _show(parts: list[Part], as_json: bool) -> None:
    if as_json:
        for part in parts:
            show_json(part)
    else:
        show_table(["PART", "FINDING", "MEANS"], [[one.name, one.finding, one.means] for one in parts])
    lost = [one.name for one in parts if not one.survives]
    say("all of it survives" if not lost else f"does not survive: {', '.join(lost)}")
    if lost:
        raise typer.Exit(ExitCode.HELD)
