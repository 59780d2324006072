"""The shape of the configuration: one frozen pydantic model per table of the TOML file.

Unknown keys are errors, every value has a type with a range, and secrets are references (`file:`, `env:`,
`credential:`), never values. `gateway.config.load` reads a file into `Config`; nothing else in the gateway reads
configuration files.
The texts of the errors are for the person who wrote the file: `gateway.config.problems` adds path, line and suggestion.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import (
    Address,
    AETitle,
    Device,
    Host,
    Model,
    Name,
    OptionalPort,
    Port,
    Problem,
    Sha256,
    checked,
    doubled,
    url_or_reference,
)
from gateway.config.marking import Mark
from gateway.config.passing import PASS_STATEMENT, TRUST_STATEMENT, BreakGlass
from gateway.config.private_elements import PrivateElements
from gateway.config.secret import SecretRef
from gateway.config.syntaxes import UNCOMPRESSED, TransferSyntaxes


class Site(Model):
    """Who we are, and where our files lie."""

    name: Name = "site"
    state: Path = Path("state")  # relative to the configuration file
    institution: Annotated[str, Field(max_length=64)] = ""
    manufacturer: Annotated[str, Field(min_length=1, max_length=64)] = "MIAD Gateway"
    contact: Annotated[str, Field(max_length=64)] = ""  # goes into marked objects as the restore service hint


class Database(Model):
    """SQLAlchemy URL, or a reference to one (`env:`, `file:`) since it may hold a password.

    Empty means the embedded SQLite file `<state>/gateway.sqlite`, or `<state>/database/gateway.sqlite` where that
    folder was made (a user a role). `Config.database_url` gives the URL to open.
    """

    url: Annotated[str, AfterValidator(url_or_reference)] = ""


class Keys(Model):
    """Every key, by reference. Only the restore role ever resolves `restore_private_key`."""

    restore_public_key: SecretRef = SecretRef("file:keys/restore.public.pem")  # X25519, HPKE
    restore_private_key: SecretRef = SecretRef("file:keys/restore.private.pem")
    signing_key: SecretRef = SecretRef("file:keys/signing.private.pem")  # Ed25519, signs vault records
    trusted_signers: tuple[SecretRef, ...] = (SecretRef("file:keys/signing.public.pem"),)
    spool_key: SecretRef = SecretRef("file:keys/spool.key")  # 32 random bytes, hexadecimal
    uid_key: SecretRef = SecretRef("file:keys/uid.key")  # 32 random bytes; made once, never rotated
    mark_key: SecretRef = SecretRef("file:keys/mark.key")  # 32 random bytes


class Tls(Model):
    """One side of a TLS connection: our certificate and key, and whom we trust."""

    certificate: Path
    private_key: Path
    trust: Path  # file (PEM, DER) or folder of files with the accepted authorities, or single certificates


class Peer(Model):
    """An AE that may send to the ingress, from the listed addresses, and with its certificate if one is named.

    With `key_sha256` or `san` it is bound: only a TLS client that shows such a certificate is this AE.
    """

    ae_title: AETitle
    addresses: tuple[Address, ...] = Field(min_length=1)
    key_sha256: tuple[Sha256, ...] = ()  # digests of SubjectPublicKeyInfo, any of them binds it
    san: tuple[str, ...] = ()  # DNS names, IP addresses or URIs, any of them in the certificate binds it

    @property
    def is_bound(self) -> bool:
        """Whether it is known by a certificate, and not by AE title and address alone."""
        return bool(self.key_sha256 or self.san)


class Ingress(Model):
    """The C-STORE SCP that faces the archive."""

    host: str = "127.0.0.1"
    port: Port = 11112
    peers: tuple[Peer, ...] = ()
    tls: Tls | None = None
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    max_associations: Annotated[int, Field(ge=1)] = 50
    max_associations_per_ae: Annotated[int, Field(ge=1)] = 40  # of one calling AE title
    max_connections: Annotated[int, Field(ge=1)] = 100  # sockets, before any A-ASSOCIATE
    max_connections_per_address: Annotated[int, Field(ge=1)] = 75
    idle_timeout_s: Annotated[float, Field(gt=0)] = 60
    handshake_timeout_s: Annotated[float, Field(gt=0)] = 5
    min_free_mib: Annotated[int, Field(ge=0)] = 512  # below this the answer is 0xA700
    max_waiting: Annotated[int, Field(ge=1)] = 200_000  # instances not yet delivered or held
    max_instance_mib: Annotated[int, Field(ge=1)] = 4096

    @model_validator(mode="after")
    def _agrees(self) -> Ingress:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        for index, peer in enumerate(self.peers):
            if peer.is_bound and self.tls is None:
                key = "key_sha256" if peer.key_sha256 else "san"
                yield ("peers", index, key), "a certificate binds this peer but there is no [ingress.tls] table"


class OptIn(Model):
    """What a route gives up, kind by kind; each must read exactly as its sentence in OPT_IN_STATEMENTS, or be empty."""

    mammography: str = ""
    quantitative: str = ""  # PET, NM and other images whose values are measurements
    for_processing: str = ""

    @model_validator(mode="after")
    def _agrees(self) -> OptIn:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        for name, statement in OPT_IN_STATEMENTS.items():
            if getattr(self, name) not in ("", statement):
                yield (name,), f'to have this kind marked, it must read "{statement}"'


OPT_IN_STATEMENTS = {
    "mammography": "marked mammograms are not lossless originals and must not be interpreted",
    "quantitative": "marked values are wrong: no SUV, count or parameter may be measured in them",
    "for_processing": "marked For Processing images must not be processed into images for presentation",
}


class Rule(Model):
    """An exception to the policy table; of a route's rules the first that fits decides."""

    sop_class: str = ""  # SOP Class UID
    modality: str = ""  # (0008,0060), as "US"
    photometric: str = ""  # (0028,0004), as "PALETTE COLOR"
    action: Literal["mark", "remap", "hold", "block", "pass"]

    @model_validator(mode="after")
    def _fits_something(self) -> Rule:
        if not (self.sop_class or self.modality or self.photometric):
            raise ValueError("a rule says what it is for: give sop_class, modality or photometric")
        if re.fullmatch(r"[0-9.]*", self.sop_class) is None:
            raise ValueError("sop_class is a UID: digits and dots")
        return self


class Route(PrivateElements):
    """What happens to instances sent to one called AE title."""

    name: Name
    called_ae: AETitle
    destinations: tuple[Name, ...] = Field(min_length=1)
    action: Literal["mark", "hold", "pass"] = "mark"
    pass_statement: str = ""  # must read exactly as PASS_STATEMENT when the route or one of its rules passes
    break_glass: BreakGlass | None = None  # the pass ends by itself; None: it stands
    mark: Mark = Mark()
    opt_in: OptIn = OptIn()
    rules: tuple[Rule, ...] = ()
    visible_text: bool = False  # words over the marked image, in an overlay plane
    source_reference: bool = True  # name the original's UID in Source Image Sequence
    study_uid: Literal["keep", "new"] = "keep"  # Study Instance UID of copies: the original's, or a derived one
    restoration: Literal["escrow", "carried", "both"] = "escrow"  # where the sealed original lies: vault, copy, both
    report: bool = False  # a protection report of each study goes to the destinations as well
    report_after_s: Annotated[float, Field(gt=0)] = 300  # when no more of the study was marked for so long

    @property
    def passes(self) -> bool:
        """Whether unmarked originals may leave by this route, all of them or those that a rule names."""
        return self.action == "pass" or (self.action != "hold" and any(rule.action == "pass" for rule in self.rules))


class Destination(Model):
    """An AE outside that receives marked copies, and by a route that passes, unmarked originals."""

    name: Name
    type: Literal["research", "ai-vendor", "external", "clinical"]
    clinical_override: str = ""  # must read exactly as CLINICAL_STATEMENT when type is "clinical"
    trust_statement: str = ""  # must read exactly as TRUST_STATEMENT when a route lets unmarked originals go there
    ae_title: AETitle
    calling_ae: AETitle = "MIAD_GATEWAY"
    host: Host
    port: Port
    tls: Tls | None = None
    transfer_syntaxes: TransferSyntaxes = UNCOMPRESSED  # of marked copies, in order of preference
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    connect_timeout_s: Annotated[float, Field(gt=0)] = 10
    response_timeout_s: Annotated[float, Field(gt=0)] = 60
    idle_release_s: Annotated[float, Field(gt=0)] = 5
    retry_first_s: Annotated[float, Field(gt=0)] = 2
    retry_longest_s: Annotated[float, Field(gt=0)] = 300
    retry_attempts: Annotated[int, Field(ge=1)] = 500


CLINICAL_STATEMENT = "marked copies must not be used for clinical reading"


class Surrogates(Model):
    """A surrogate pack of the site's own networks (`gateway.mark.surrogates.foreign`), for routes that name it."""

    name: Name
    pack: Path  # the pack description, a TOML file beside the networks


class Worker(Model):
    """The role that seals, marks and delivers."""

    batch: Annotated[int, Field(ge=1, le=256)] = 8
    lease_s: Annotated[float, Field(ge=5)] = 120
    poll_s: Annotated[float, Field(gt=0)] = 0.2
    device: Device = "auto"
    memory_mib: Annotated[int, Field(ge=0)] = 0  # that marking may take; 0: three quarters of what the machine has


class Codecs(Model):
    """The child processes that decode and encode compressed frames, without keys, files or network."""

    memory_mib: Annotated[int, Field(ge=512, le=1 << 20)] = 1024  # address space of each; about 200 are taken at start
    frame_seconds: Annotated[float, Field(gt=0, le=600)] = 2.0  # processor time of a frame up to 16 MiB
    processes: Annotated[int, Field(ge=0, le=1024)] = 0  # at a time, of each role; 0: one a processor core


class Workstation(Model):
    """An AE that may query and retrieve originals: bound to a certificate, or plain by explicit consent."""

    ae_title: AETitle
    addresses: tuple[Address, ...] = Field(min_length=1)  # where its associations come from
    key_sha256: tuple[Sha256, ...] = ()  # digests of SubjectPublicKeyInfo, any of them binds it
    san: tuple[str, ...] = ()  # DNS names, IP addresses or URIs, any of them in the certificate binds it
    plain: bool = False  # may use the port without TLS; warned of at start, audited
    host: str = ""  # where it receives C-MOVE and answers to C-STORE; empty: C-GET only
    port: Port | None = None
    receive_plain: bool = False  # originals may go there without TLS
    studies: tuple[str, ...] = ("*",)  # Study Instance UIDs it may see, "*" for all

    @model_validator(mode="after")
    def _has_an_identity(self) -> Workstation:
        if not (self.plain or self.key_sha256 or self.san):
            raise ValueError(
                "an AE title is a name, not an identity: give key_sha256 or san of its client certificate, "
                "or plain = true"
            )
        if bool(self.host) != (self.port is not None):
            raise ValueError("host and port go together")
        return self


class Restore(Model):
    """The Query/Retrieve SCP that faces authorized workstations."""

    ae_title: AETitle = "MIAD_RESTORE"
    host: str = "127.0.0.1"
    tls_port: OptionalPort = 2762  # false in the file, None here: no TLS
    plain_port: Port | None = None
    tls: Tls | None = None
    workstations: tuple[Workstation, ...] = ()
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    max_associations: Annotated[int, Field(ge=1)] = 20
    max_associations_per_ae: Annotated[int, Field(ge=1)] = 16  # of one calling AE title
    max_connections: Annotated[int, Field(ge=1)] = 50
    max_connections_per_address: Annotated[int, Field(ge=1)] = 37
    max_memory_mib: Annotated[int, Field(ge=16)] = 512  # of requests in reception, over all associations
    idle_timeout_s: Annotated[float, Field(gt=0)] = 60
    handshake_timeout_s: Annotated[float, Field(gt=0)] = 5
    max_matches: Annotated[int, Field(ge=1)] = 10_000

    @model_validator(mode="after")
    def _agrees(self) -> Restore:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        yield from doubled("workstations", "ae_title", [w.ae_title for w in self.workstations])
        if self.tls_port is None and self.plain_port is None:
            yield (
                ("tls_port",),
                "there is neither TLS ([restore.tls] and tls_port) nor a plain_port: nobody could connect",
            )
        if self.tls_port is not None and self.tls is None:
            yield (
                ("tls_port",),
                "tls_port is set but there is no [restore.tls] table; without TLS write tls_port = false",
            )
        for index, workstation in enumerate(self.workstations):
            here = ("workstations", index)
            if workstation.plain and self.plain_port is None:
                yield (*here, "plain"), "plain = true but there is no restore.plain_port"
            if workstation.host and not workstation.receive_plain and self.tls is None:
                yield (
                    (*here, "host"),
                    "originals go there over TLS but there is no [restore.tls] table to send them with",
                )


class Retention(Model):
    """How long files are kept after delivery, in days; 0 vault days means for ever."""

    vault_days: Annotated[float, Field(ge=0)] = 0
    derived_days: Annotated[float, Field(ge=0)] = 1


class Log(Model):
    """What the roles write to standard error; never a patient's data, whatever the level."""

    format: Literal["auto", "console", "json"] = "auto"  # auto: console on a terminal, JSON lines elsewhere
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Model):
    """The whole configuration of one site."""

    version: Literal[1] = 1
    site: Site = Site()
    database: Database = Database()
    keys: Keys = Keys()
    ingress: Ingress = Ingress()
    routes: tuple[Route, ...] = ()
    destinations: tuple[Destination, ...] = ()
    surrogates: tuple[Surrogates, ...] = ()
    worker: Worker = Worker()
    codecs: Codecs = Codecs()
    restore: Restore | None = None
    retention: Retention = Retention()
    log: Log = Log()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL to open; a reference is resolved, so this may raise `ConfigError`."""
        if not self.database.url:
            shared = self.site.state / "database"  # made where each role has a user of its own (deploy/systemd)
            return f"sqlite:///{(shared if shared.is_dir() else self.site.state) / 'gateway.sqlite'}"
        if isinstance(self.database.url, SecretRef):
            return self.database.url.resolve().decode().strip()
        return self.database.url

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        yield from doubled("routes", "name", [r.name for r in self.routes])
        yield from doubled("routes", "called_ae", [r.called_ae for r in self.routes])
        yield from doubled("destinations", "name", [d.name for d in self.destinations])
        yield from doubled("surrogates", "name", [s.name for s in self.surrogates])
        known = sorted(d.name for d in self.destinations)
        for index, route in enumerate(self.routes):
            here = ("routes", index)
            for position, wanted in enumerate(route.destinations):
                if wanted not in known:
                    defined = ", ".join(known) or "none"
                    yield (*here, "destinations", position), f"no destination is named {wanted!r}; defined: {defined}"
            if route.passes and route.pass_statement != PASS_STATEMENT:
                yield (*here, "pass_statement"), f'to let unmarked originals pass, it must read "{PASS_STATEMENT}"'
            if route.break_glass is not None and not route.passes:
                yield (
                    (*here, "break_glass"),
                    "no original passes by this route: break_glass has no effect, remove it",
                )
        passing = {name: route.name for route in self.routes if route.passes for name in route.destinations}
        for index, destination in enumerate(self.destinations):
            if destination.trust_statement not in ("", TRUST_STATEMENT) or (
                destination.name in passing and not destination.trust_statement
            ):
                route_name = passing.get(destination.name)
                why = f"route {route_name} lets unmarked originals go there, so" if route_name else "when it is given,"
                yield ("destinations", index, "trust_statement"), f'{why} it must read "{TRUST_STATEMENT}"'
            if destination.type == "clinical" and destination.clinical_override != CLINICAL_STATEMENT:
                here = ("destinations", index)
                yield (*here, "clinical_override"), f'a clinical destination needs it to read "{CLINICAL_STATEMENT}"'
