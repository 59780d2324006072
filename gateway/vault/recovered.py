"""`recovered.toml`: the configuration that a recovered site goes on with, and what a person has to know of it.

It is the site's own file with its paths led to what came back; comments are lost, so `gateway.toml` lies beside it as
it was. What cannot come back is told, a line for each setting.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gateway.config.base import url_or_reference
from gateway.config.lines import KeyPath, format_path
from gateway.config.load import decode_text, parse_config
from gateway.config.models import Keys
from gateway.config.problems import InvalidConfigError
from gateway.config.secret import SecretRef
from gateway.config.toml_text import to_toml
from gateway.errors import VaultError
from gateway.vault.manifest import CONFIG, KEYS, Manifest

RECOVERED = "recovered.toml"
_HEAD = "# Made by `miad-gateway vault recover`"


def configuration(folder: Path, manifest: Manifest, database_url: str, *, has_list: bool) -> list[str]:
    """Write `recovered.toml` into `folder`, where everything else lies already; gives what a person has to know.

    Raises
    ------
    VaultError
        ``backup-format``: the manifest tells of settings that the configuration file has not.
    """
    database = url_or_reference(database_url)
    if isinstance(database, SecretRef):
        database = database.against(Path.cwd())
    notes = [_of_list(manifest, has_list)]
    text: str | None = None
    if (folder / CONFIG).exists():
        text, told = _whole(folder, manifest, database)
    else:
        told = ["this backup holds no configuration file: recovered.toml restores, and neither receives nor sends"]
    if text is None:
        text = f"{_HEAD}: restores what the backup held.\n" + to_toml(_least(manifest, database))
    with open(folder / RECOVERED, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="utf-8") as out:
        out.write(text)
    notes += told
    notes.append("what waited to be delivered is in no backup: have the archive send it again")
    notes.append("end the old site before this one starts: both would give the same new UIDs to different copies")
    return notes


def _whole(folder: Path, manifest: Manifest, database: str) -> tuple[str | None, list[str]]:
    """The site's whole configuration, led to what came back; None where this version takes it no more."""
    table = tomllib.loads(decode_text((folder / CONFIG).read_bytes(), folder / CONFIG))
    notes = [*_of_keys(manifest), *_of_database(table, database), *_of_left_out(manifest)]
    for setting, place in (*manifest.settings, *manifest.left_out):
        if setting[0] != KEYS:
            _set(table, setting, place)
    table["keys"] = _keys(manifest)
    table["site"] = {**table.get("site", {}), "state": "state"}
    table.pop("database", None)
    notes += _of_store(table.pop("store", None))
    notes += _of_durability(table.pop("durability", "disk"))
    if database:
        table["database"] = {"url": str(database)}
    text = f"{_HEAD} from {CONFIG}, which lies beside it as it was.\n" + to_toml(table)
    try:
        parse_config(text, folder / RECOVERED)
    except InvalidConfigError as error:
        problems = "; ".join(f"{one.path} {one.message}".strip() for one in error.problems)
        notes = [f"{CONFIG} is not valid for this version, so recovered.toml only restores: {problems}"]
        return None, notes
    return text, notes


def _least(manifest: Manifest, database: str) -> dict[str, Any]:
    """What restores: the site's name, what it says of itself, its keys, and where the records are."""
    keys = _keys(manifest) if manifest.settings else {}
    keys["trusted_signers"] = [f"file:{KEYS}/{name}" for name in manifest.trusted_signers]
    table = {"version": 1, "site": {"name": manifest.site, **manifest.about}, "keys": keys}
    return table | ({"database": {"url": str(database)}} if database else {})


def _keys(manifest: Manifest) -> dict[str, Any]:
    """The table of keys: each a file of the recovered site."""
    table: dict[str, Any] = {}
    for setting, place in manifest.settings:
        if setting[0] != KEYS or setting[1] not in Keys.model_fields:
            continue
        reference = f"file:{place}"
        if len(setting) == 2:
            table[str(setting[1])] = reference
        else:
            table.setdefault(str(setting[1]), []).append(reference)
    return table


def _set(table: dict[str, Any], setting: KeyPath, value: str) -> None:
    inner: Any = table
    try:
        for step in setting[:-1]:
            inner = inner[step]
        if setting[-1] not in inner:
            raise KeyError
        inner[setting[-1]] = value
    except (KeyError, IndexError, TypeError):
        message = f"the backup's configuration has no {format_path(setting)}, of which its manifest tells"
        raise VaultError("backup-format", message) from None


def _of_list(manifest: Manifest, has_list: bool) -> str:
    if not has_list:
        return (
            "this backup holds no list of the restore role: every record is trusted as it is when it is first seen"
            " (audited at the first start: list-begun)"
        )
    taken = datetime.fromtimestamp(manifest.taken_at or 0, UTC).isoformat(" ", "seconds")
    return (
        f"the restore role's list of records is that of {taken}: a record that it does not have is trusted as it is"
        " when it is first seen (audited at the first start: list-recovered)"
    )


def _of_keys(manifest: Manifest) -> Iterator[str]:
    """Keys that were no files are files now."""
    for setting, place in manifest.settings:
        entry = manifest.files.get(place)
        if entry is not None and entry.path.startswith(("env:", "credential:")):
            yield (
                f"{format_path(setting)} was {entry.path}: its value is now the file {place}; to give it as before,"
                " hand it to the service and write that reference into recovered.toml"
            )


def _of_database(table: dict[str, Any], database: str) -> Iterator[str]:
    url = table.get("database", {}).get("url", "")
    if not url or database:
        return
    shown = url if isinstance(url_or_reference(url), SecretRef) else "a URL"
    yield (
        f"database.url was {shown}, whose value is in no backup: the records are in state/gateway.sqlite; to go on with"
        " a server, recover into an empty database of it with --database"
    )


def _of_store(store: object) -> Iterator[str]:
    if store is not None:
        yield (
            "the sealed originals were in an object store and are now in state/vault: [store] is left out of"
            " recovered.toml; miad-gateway reads them from there"
        )


def _of_durability(durability: object) -> Iterator[str]:
    if durability != "disk":
        yield (
            "durability was cluster and is left out of recovered.toml, which has no [store]; what still waited in the"
            " object store is in no backup"
        )


def _of_left_out(manifest: Manifest) -> Iterator[str]:
    for setting, path in manifest.left_out:
        yield f"{format_path(setting)} names {path}, which is in no backup: put it there, or the worker does not start"
