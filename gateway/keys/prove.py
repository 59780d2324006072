"""Writes the proof of the restore keys for a site that has none: where the private key and the signing key both are."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from gateway.config.models import Keys
from gateway.config.secret import SecretRef
from gateway.errors import ConfigError
from gateway.keys import pem
from gateway.keys.generate import sync_folder, write_key_file
from gateway.keys.hpke import key_id
from gateway.keys.keyring import load_verifier
from gateway.keys.pair import PROOFS, PUT_BACK, proof_of
from gateway.keys.signing import Signer


@dataclass(frozen=True)
class Proved:
    """Where the proof lies, of which key it is, and whether it lay there before."""

    path: Path
    key_id: str
    signer_id: str
    was_there: bool


def prove_pair(keys: Keys, out: Path | None = None, overwrite: bool = False) -> Proved:
    """Compare both halves of the restore key and write the proof that they belong together, whole or not at all.

    Parameters
    ----------
    out
        Where to; None: where `keys` look for it.
    overwrite
        Put it in the place of another proof; never of anything else, which may be a key.

    Raises
    ------
    ConfigError
        A key cannot be read here; ``restore-pair-differs``; ``signer-not-trusted``; ``no-place``: the proof is looked
        for in a variable, or nowhere; ``proof-exists``: something else is there; ``cannot-write``.
    """
    private = pem.private_key(keys.restore_private_key.resolve(), X25519PrivateKey, "keys.restore_private_key")
    public = pem.public_key(keys.restore_public_key.resolve(private=False), X25519PublicKey, "keys.restore_public_key")
    if key_id(public) != key_id(private.public_key()):
        message = "keys.restore_public_key does not belong to keys.restore_private_key: there is nothing to prove"
        raise ConfigError("restore-pair-differs", message, PUT_BACK)
    signer = Signer(pem.private_key(keys.signing_key.resolve(), Ed25519PrivateKey, "keys.signing_key"))
    if signer.id not in load_verifier(keys).ids:
        raise ConfigError(
            "signer-not-trusted", "keys.trusted_signers does not list the public half of keys.signing_key"
        )
    path = out or _place(keys)
    proof = proof_of(public, signer)
    there = not overwrite and os.path.lexists(path)
    if overwrite and not _is_free(path):
        message = f"{path} is there already and is no proof of any restore key"
        raise ConfigError("proof-exists", message, "name another file; if it should go, remove it by hand")
    if there and not _holds(path, proof):
        message = f"{path} is there already and is not this proof"
        raise ConfigError("proof-exists", message, "look whose it is; --overwrite puts the new one in its place")
    if not there:
        try:
            _write(path, proof, overwrite)
        except FileExistsError:
            raise ConfigError("proof-exists", f"{path} has come meanwhile", "look whose it is") from None
        except OSError as error:
            message = f"cannot write {path}: {error.strerror}"
            raise ConfigError(
                "cannot-write", message, "name another place with --out, and in keys.restore_proof"
            ) from None
    return Proved(path, key_id(public), signer.id, there)


def _place(keys: Keys) -> Path:
    reference = keys.proof
    path = reference.file if reference is not None else None
    if path is None:
        message = "the proof lies in no file that this user can name"
        hint = "write it somewhere with --out FILE, then name it: keys.restore_proof, as file:, env: or credential:"
        raise ConfigError("no-place", message, hint)
    return path


def _holds(path: Path, proof: bytes) -> bool:
    try:
        return SecretRef(f"file:{path.absolute()}").resolve(private=False).split() == proof.split()
    except ConfigError:
        return False


def _is_free(path: Path) -> bool:
    """Whether nothing is lost with what is there: a proof, an empty file, a link to nothing."""
    try:
        data = SecretRef(f"file:{path.absolute()}").resolve(private=False)
    except ConfigError:
        return not path.exists()
    return not data.strip() or data.startswith(PROOFS.encode())


def _write(path: Path, data: bytes, overwrite: bool) -> None:
    """Everyone may read it: it is no secret."""
    with tempfile.TemporaryDirectory(prefix=".proof-", dir=path.absolute().parent) as folder:
        made = Path(folder) / path.name
        write_key_file(made, data, 0o644)
        if overwrite:
            os.replace(made, path)
        else:
            os.link(made, path)  # never in the place of another
    sync_folder(path.absolute().parent)
