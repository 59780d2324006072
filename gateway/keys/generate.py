"""Makes a site's keys, once. They are never replaced silently: without them originals do not come back."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.errors import ConfigError
from gateway.keys import pem
from gateway.keys.hpke import key_id
from gateway.keys.pair import PROOF_NAME, proof_of
from gateway.keys.signing import Signer

PRIVATE_NAMES = ("restore.private.pem", "signing.private.pem", "spool.key", "uid.key", "mark.key")
PUBLIC_NAMES = ("restore.public.pem", "signing.public.pem")


def make_keys(folder: Path, overwrite: bool = False) -> tuple[Path, ...]:
    """Write a new set of keys into `folder` and return their paths (names: PRIVATE_NAMES, then PUBLIC_NAMES).

    Private files have mode 0600, the folder 0700 when it is made here. A new folder appears complete or not at all.

    Raises
    ------
    ConfigError
        ``keys-exist`` when any of the names is there already and `overwrite` is false.
    """
    there = [name for name in (*PRIVATE_NAMES, *PUBLIC_NAMES, PROOF_NAME) if os.path.lexists(folder / name)]
    if there and not overwrite:
        raise ConfigError(
            "keys-exist",
            f"{folder} has keys already: {', '.join(there)}",
            "they open sealed originals: keep them",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    made, is_new = Path(tempfile.mkdtemp(prefix=".keys-", dir=folder.parent)), False
    try:
        _write_all(made)
        if folder.exists():
            for name in (*PRIVATE_NAMES, *PUBLIC_NAMES, PROOF_NAME):
                os.replace(made / name, folder / name)
            sync_folder(folder)
        else:
            os.rename(made, folder)
            is_new = True
        sync_folder(folder.parent)
    except OSError:
        if is_new:  # nothing is sealed to them yet; found later, they would be taken for keys that a power cut spares
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return tuple(folder / name for name in PRIVATE_NAMES + PUBLIC_NAMES)


def _write_all(folder: Path) -> None:
    for use, private in (("restore", X25519PrivateKey.generate()), ("signing", Ed25519PrivateKey.generate())):
        text = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_key_file(folder / f"{use}.private.pem", text, 0o600)
        text = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        write_key_file(folder / f"{use}.public.pem", text, 0o644)
    restore = pem.public_key((folder / "restore.public.pem").read_bytes(), X25519PublicKey, "restore.public.pem")
    own = pem.private_key((folder / "signing.private.pem").read_bytes(), Ed25519PrivateKey, "signing.private.pem")
    write_key_file(folder / PROOF_NAME, proof_of(restore, Signer(own)), 0o644)
    for use in ("spool", "uid", "mark"):
        write_key_file(folder / f"{use}.key", secrets.token_hex(32).encode("ascii") + b"\n", 0o600)
    sync_folder(folder)


def ids_of(folder: Path) -> tuple[str, str]:
    """The ids of the restore key and of the signing key in `folder`, by their public halves."""
    restore, signer = (folder / name for name in PUBLIC_NAMES)
    return (
        key_id(pem.public_key(restore.read_bytes(), X25519PublicKey, restore.name)),
        key_id(pem.public_key(signer.read_bytes(), Ed25519PublicKey, signer.name)),
    )


def write_key_file(path: Path, data: bytes, mode: int) -> None:
    """Write a new file durably with exactly `mode`; never replaces one."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make what was made, renamed or removed in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
