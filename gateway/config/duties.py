"""Which role holds what: the secrets that a role resolves, the folders that it writes, and what it must not see.

One table for everyone: `config check` looks at what a role needs, `serve` keeps from a role what it does not need, and
the folders that `deploy/systemd/` makes for a user each are these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from gateway.config.lines import KeyPath
from gateway.config.models import Config
from gateway.config.named import secret_references
from gateway.config.notify import Notify
from gateway.config.secret import SecretRef

Role = Literal["all", "ingress", "worker", "restore", "page"]
ROLES: tuple[Role, ...] = ("ingress", "worker", "restore", "page")
"""The roles that are processes of their own."""

# Who holds which reference of [keys]: name -> roles, and whether the file must be closed to others.
_KEYS: dict[str, tuple[frozenset[str], bool]] = {
    "spool_key": (frozenset({"ingress", "worker"}), True),
    "signing_key": (frozenset({"worker"}), True),
    "uid_key": (frozenset({"worker"}), True),
    "mark_key": (frozenset({"worker"}), True),
    "restore_public_key": (frozenset({"worker"}), False),
    "restore_proof": (frozenset({"worker", "restore"}), False),
    "trusted_signers": (frozenset({"worker", "restore"}), False),
    "restore_private_key": (frozenset({"restore"}), True),
}


def speaks_to_store(config: Config, role: Role) -> bool:
    """Whether a role asks the object store: for sealed originals, or, where it keeps what is received, for that."""
    return config.store is not None and (
        role in ("all", "worker", "restore") or (role == "ingress" and config.durability == "cluster")
    )


# Folders below the state folder that a role writes (rwx), and that it reads only.
WRITES: dict[str, tuple[str, ...]] = {
    "ingress": ("spool", "database", "audit/ingress"),
    "worker": ("spool", "derived", "vault", "viewer", "database", "audit/worker"),
    "restore": ("restore", "database", "audit/restore"),
    "page": ("database", "audit/page"),
}
READS: dict[str, tuple[str, ...]] = {"ingress": (), "worker": (), "restore": ("vault",), "page": ("viewer",)}
PRIVATE = ("derived", "restore", *(f"audit/{role}" for role in ROLES))
"""Folders that one user alone has."""


def roles_to_start(config: Config) -> list[Role]:
    """The roles that have something to do: no ingress without a route, no restore and no page without its table.

    A configuration of `vault recover` may have neither. The worker also ends retention and what still waits.
    """
    return [
        *(["ingress"] if config.routes else []),  # type: ignore[list-item]
        "worker",
        *(["restore"] if config.restore is not None else []),  # type: ignore[list-item]
        *(["page"] if config.page is not None else []),  # type: ignore[list-item]
    ]


def processes_of(config: Config, role: Role) -> list[str]:
    """The names of a role's processes: its own, and for further ones ``ROLE-2`` and so on."""
    count = {"ingress": config.ingress.processes, "worker": config.worker.processes}.get(role, 1)
    return [role if number == 1 else f"{role}-{number}" for number in range(1, count + 1)]


def role_of(process: str) -> Role:
    """The role of a process with a name of `processes_of`."""
    return process.partition("-")[0]  # type: ignore[return-value]


def secrets_of(config: Config, role: Role) -> Iterator[tuple[KeyPath, SecretRef, bool]]:
    """The references to secrets that `role` resolves: path, reference, whether it must be closed to others.

    For role ``all``, the process that starts the others and holds no key itself: all but the restore private key,
    which is looked at for role ``restore`` only. The proof of the restore keys is named even where none need be.
    """
    if config.store is not None and speaks_to_store(config, role):
        yield from (((("store", name), reference, True)) for name, reference in config.store.references())
    oidc = config.page.oidc if config.page is not None else None
    if oidc is not None and oidc.client_secret is not None and role in ("all", "page"):
        yield ("page", "oidc", "client_secret"), oidc.client_secret, True
    if config.notify is not None and role in ("all", "page"):
        yield from _of_notices(config.notify)
    for name in type(config.keys).model_fields:
        holders, private = _KEYS[name]
        if role not in holders and not (role == "all" and name != "restore_private_key"):
            continue
        value = config.keys.proof if name == "restore_proof" else getattr(config.keys, name)
        if isinstance(value, SecretRef):
            yield ("keys", name), value, private
        elif value is None:
            continue
        else:
            yield from ((("keys", name, index), reference, private) for index, reference in enumerate(value))


def _of_notices(notify: Notify) -> Iterator[tuple[KeyPath, SecretRef, bool]]:
    if notify.mail is not None and notify.mail.password is not None:
        yield ("notify", "mail", "password"), notify.mail.password, True
    for index, one in enumerate(notify.webhooks):
        yield ("notify", "webhooks", index, "secret"), one.secret, True


def foreign_variables(config: Config, role: Role) -> frozenset[str]:
    """Environment variables that hold secrets of this configuration, and none that `role` resolves.

    Every ``env:`` reference of the configuration counts, so a key that is added later is kept from the roles that are
    not said to hold it. The database's URL is everyone's but the page's, where that
    has one of its own.
    """
    named = {reference.variable for reference in secret_references(config)}
    own = {reference.variable for _, reference, _ in secrets_of(config, role)}
    url = config.page.database_url if role == "page" and config.page else ""
    url = url or config.database.url
    if isinstance(url, SecretRef):
        own.add(url.variable)
    return frozenset(name for name in named - own if name)


def roles_of(path: KeyPath) -> tuple[Role, ...]:
    """The roles that something wrong at `path` of the configuration concerns."""
    table = path[0] if path else ""
    if table in ("ingress", "restore", "page"):
        return (table,)  # type: ignore[return-value]  # they are roles, and the names of their tables
    if table == "notify":
        return ("page",)
    if table in ("routes", "destinations", "surrogates", "worker", "retention", "commitment"):
        return ("worker",)
    if table == "store":
        return ("worker", "restore")
    if table == "keys" and len(path) > 1 and path[1] in _KEYS:
        return tuple(role for role in ROLES if role in _KEYS[path[1]][0])
    return ROLES
