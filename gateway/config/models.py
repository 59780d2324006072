"""The shape of the configuration: one frozen pydantic model per table of the TOML file.

Unknown keys are errors, every value has a type with a range, and secrets are references (`file:`, `env:`,
`credential:`), never values. `gateway.config.load` reads a file into `Config`; nothing else in the gateway reads
configuration files.
The texts of the errors are for the person who wrote the file: `gateway.config.problems` adds path, line and suggestion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from gateway.config.base import (
    Address,
    AETitle,
    Device,
    HttpsUrl,
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
from gateway.config.commitment import COMMIT_STATEMENT, DELIVERED_STATEMENT, Commitment, Reports
from gateway.config.destination import CLINICAL_STATEMENT, Destination
from gateway.config.durability import Durability, durability_problems
from gateway.config.fallbacks import fallback_problems
from gateway.config.identity import Tokens
from gateway.config.marking import Mark
from gateway.config.notify import Notify
from gateway.config.page import Page
from gateway.config.passing import PASS_STATEMENT, TRUST_STATEMENT, BreakGlass
from gateway.config.private_elements import PrivateElements
from gateway.config.rules import Rule
from gateway.config.secret import SecretRef
from gateway.config.store import Store
from gateway.config.tls import Tls
from gateway.config.traces import Traces


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


LEAST_MIB = 1024  # of a worker process that has company: networks, and some frames
MOST_PROCESSES = 64  # of a role

PROOF_NAME = "restore.proof"  # beside the public restore key


class Keys(Model):
    """Every key, by reference. Only the restore role ever resolves `restore_private_key`."""

    restore_public_key: SecretRef = SecretRef("file:keys/restore.public.pem")  # X25519, HPKE
    restore_private_key: SecretRef = SecretRef("file:keys/restore.private.pem")
    restore_proof: SecretRef | None = None  # that the two belong together; one that is named here must be there
    signing_key: SecretRef = SecretRef("file:keys/signing.private.pem")  # Ed25519, signs vault records
    trusted_signers: tuple[SecretRef, ...] = (SecretRef("file:keys/signing.public.pem"),)
    spool_key: SecretRef = SecretRef("file:keys/spool.key")  # 32 random bytes, hexadecimal
    uid_key: SecretRef = SecretRef("file:keys/uid.key")  # 32 random bytes; made once, never rotated
    mark_key: SecretRef = SecretRef("file:keys/mark.key")  # 32 random bytes

    @property
    def proof(self) -> SecretRef | None:
        """Where the proof of the restore keys is looked for: as set, else beside the public key; None: nowhere."""
        if self.restore_proof is not None:
            return self.restore_proof
        if (path := self.restore_public_key.path) is not None:
            return SecretRef(f"file:{path.with_name(PROOF_NAME)}")
        return SecretRef(f"credential:{PROOF_NAME}") if self.restore_public_key.variable is None else None


class Peer(Model):
    """An AE that may send to the ingress, from the listed addresses, and with its certificate if one is named.

    With `key_sha256` or `san` it is bound: only a TLS client that shows such a certificate is this AE.
    """

    ae_title: AETitle
    addresses: tuple[Address, ...] = Field(min_length=1)
    key_sha256: tuple[Sha256, ...] = ()  # digests of SubjectPublicKeyInfo, any of them binds it
    san: tuple[str, ...] = ()  # DNS names, IP addresses or URIs, any of them in the certificate binds it
    reports: Reports | None = None  # it may ask for storage commitment, and is told there

    @property
    def is_bound(self) -> bool:
        """Whether it is known by a certificate, and not by AE title and address alone."""
        return bool(self.key_sha256 or self.san)


class Ingress(Model):
    """The C-STORE SCP that faces the archive."""

    host: str = "127.0.0.1"
    port: Port = 11112
    dicomweb_port: Port | None = None  # STOW-RS over TLS, for peers that are bound to a certificate
    dicomweb_max_mib: Annotated[int, Field(ge=1)] = 8192  # of one request
    peers: tuple[Peer, ...] = ()
    balancers: tuple[Address, ...] = ()  # each connection from there has to name its client in a PROXY header
    tls: Tls | None = None
    max_pdu: Annotated[int, Field(ge=4096, le=1_048_576)] = 131_072
    max_associations: Annotated[int, Field(ge=1)] = 50
    max_associations_per_ae: Annotated[int, Field(ge=1)] = 40  # of one calling AE title
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] = 1  # that receive beside each other on this port
    async_operations: Annotated[int, Field(ge=1, le=64)] = 8  # C-STOREs under way at once where the peer asks for it
    max_connections: Annotated[int, Field(ge=1)] = 100  # sockets, before any A-ASSOCIATE
    max_connections_per_address: Annotated[int, Field(ge=1)] = 75
    idle_timeout_s: Annotated[float, Field(gt=0)] = 60
    handshake_timeout_s: Annotated[float, Field(gt=0)] = 5
    min_free_mib: Annotated[int, Field(ge=0)] = 512  # below this the answer is 0xA700
    max_waiting: Annotated[int, Field(ge=1)] = 200_000  # instances not yet delivered or held
    max_unmarked: Annotated[int, Field(ge=1)] = 200_000  # of these, instances that wait for their mark
    max_instance_mib: Annotated[int, Field(ge=1)] = 4096
    segment_mib: Annotated[int, Field(ge=1, le=4096)] = 128  # of the spool; a longer one is closed

    @model_validator(mode="after")
    def _agrees(self) -> Ingress:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        for index, peer in enumerate(self.peers):
            if peer.is_bound and self.tls is None:
                key = "key_sha256" if peer.key_sha256 else "san"
                yield ("peers", index, key), "a certificate binds this peer but there is no [ingress.tls] table"
        if self.dicomweb_port is not None and self.tls is None:
            yield ("dicomweb_port",), "DICOMweb needs TLS, and there is no [ingress.tls] table"
        elif self.dicomweb_port is not None and not any(peer.is_bound for peer in self.peers):
            yield ("dicomweb_port",), "no peer is bound to a certificate: nobody could store there"


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
    ack: Literal["spool", "downstream"] = "spool"  # whose having it is success to the archive
    ack_within_s: Annotated[float, Field(gt=0)] = 30  # with ack "downstream": then 0xA700, and it stays queued
    commit_statement: str = ""  # must read exactly as COMMIT_STATEMENT, or be empty
    delivered_statement: str = ""  # must read exactly as DELIVERED_STATEMENT, or be empty
    report: bool = False  # a protection report of each study goes to the destinations as well
    report_after_s: Annotated[float, Field(gt=0)] = 300  # when no more of the study was marked for so long

    @property
    def passes(self) -> bool:
        """Whether unmarked originals may leave by this route, all of them or those that a rule names."""
        return self.action == "pass" or (self.action != "hold" and any(rule.action == "pass" for rule in self.rules))


class Surrogates(Model):
    """A surrogate pack of the site's own networks (`gateway.mark.surrogates.foreign`), for routes that name it."""

    name: Name
    pack: Path  # the pack description, a TOML file beside the networks


class Worker(Model):
    """The role that seals, marks and delivers."""

    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] = 1  # that seal, mark and deliver beside each other
    batch: Annotated[int, Field(ge=1, le=256)] = 8
    lease_s: Annotated[float, Field(ge=5)] = 120
    poll_s: Annotated[float, Field(gt=0)] = 2.0
    device: Device = "auto"
    memory_mib: Annotated[int, Field(ge=0)] = 0  # for marking, in all processes; 0: three quarters of the machine
    sending: Annotated[int, Field(ge=0, le=1024)] = 0  # instances at a time, to all destinations; 0: no limit

    @model_validator(mode="after")
    def _agrees(self) -> Worker:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        if 0 < self.memory_mib < LEAST_MIB * self.processes and self.processes > 1:
            yield ("memory_mib",), f"{self.processes} processes share memory_mib, and each wants {LEAST_MIB} at least"


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
    dicomweb_port: Port | None = None  # QIDO-RS and WADO-RS over TLS, for the same workstations
    dicomweb_url: HttpsUrl = ""  # as workstations know it; empty: by the name that they call it
    tls: Tls | None = None
    tokens: Tokens | None = None  # over DICOMweb each request shows one besides the certificate
    workstations: tuple[Workstation, ...] = ()
    balancers: tuple[Address, ...] = ()  # each connection from there has to name its client in a PROXY header
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
        if self.dicomweb_port is not None and self.tls is None:
            yield ("dicomweb_port",), "DICOMweb needs TLS, and there is no [restore.tls] table"
        if self.tokens is not None and self.dicomweb_port is None:
            yield ("tokens",), "tokens are shown over DICOMweb, and there is no dicomweb_port"
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


class Reload(Model):
    """When a changed configuration is taken over besides by command and SIGHUP."""

    watch: bool = True  # the file, its conf.d, and certificates, lists and other files that it names


class Config(Model):
    """The whole configuration of one site."""

    version: Literal[1] = 1
    durability: Durability = "disk"
    site: Site = Site()
    database: Database = Database()
    store: Store | None = None
    keys: Keys = Keys()
    ingress: Ingress = Ingress()
    routes: tuple[Route, ...] = ()
    destinations: tuple[Destination, ...] = ()
    surrogates: tuple[Surrogates, ...] = ()
    worker: Worker = Worker()
    codecs: Codecs = Codecs()
    commitment: Commitment | None = None
    restore: Restore | None = None
    page: Page | None = None
    notify: Notify | None = None
    retention: Retention = Retention()
    log: Log = Log()
    traces: Traces | None = None
    reload: Reload = Reload()

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL to open; a reference is resolved, so this may raise `ConfigError`."""
        return self._opened(self.database.url)

    @property
    def page_database_url(self) -> str:
        """The URL that role page opens: its own, where it has one."""
        return self._opened(self.page.database_url if self.page and self.page.database_url else self.database.url)

    def _opened(self, url: str) -> str:
        if not url:
            shared = self.site.state / "database"  # made where each role has a user of its own (deploy/systemd)
            return f"sqlite:///{(shared if shared.is_dir() else self.site.state) / 'gateway.sqlite'}"
        return url.resolve().decode().strip() if isinstance(url, SecretRef) else url

    @model_validator(mode="after")
    def _agrees(self) -> Config:
        return checked(self, self._disagreements())

    def _disagreements(self) -> Iterator[Problem]:
        yield from durability_problems(self.durability, self.database.url, self.store)
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
            if route.ack == "downstream" and route.ack_within_s >= self.ingress.idle_timeout_s:
                text = f"associations end after {self.ingress.idle_timeout_s:g} s of silence (ingress.idle_timeout_s)"
                yield (*here, "ack_within_s"), f"{text}: wait for less"
            for key, statement in (("commit", COMMIT_STATEMENT), ("delivered", DELIVERED_STATEMENT)):
                if getattr(route, f"{key}_statement") not in ("", statement):
                    yield (*here, f"{key}_statement"), f'when it is given, it must read "{statement}"'
            if route.break_glass is not None and not route.passes:
                yield (
                    (*here, "break_glass"),
                    "no original passes by this route: break_glass has no effect, remove it",
                )
        for index, peer in enumerate(self.ingress.peers):
            if peer.reports is not None and peer.reports.tls and (self.commitment is None or not self.commitment.tls):
                where = ("ingress", "peers", index, "reports", "tls")
                yield where, "reports go there over TLS but there is no [commitment.tls] table to send them with"
        if self.notify is not None and self.page is None:
            yield ("notify",), "role page sends notices, and there is no [page] table"
        yield from fallback_problems(self.routes, self.destinations)
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
