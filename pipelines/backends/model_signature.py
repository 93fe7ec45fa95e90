"""Detached signatures of model folders in the format of OpenSSF model-signing, that anybody can verify with its tool.

What is signed is a statement: the folder's name and the SHA-256 of every file in it. A signature counts when a key or a
certificate of the settings made it; nothing that lies beside a model says whom to trust.

model-signing is imported at the first call (half a second).
"""

from __future__ import annotations

import base64
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pipelines.errors import IntegrityError, ServiceRefused, explain
from pipelines.ports import Signed
from pipelines.settings import Settings

OWN_KEY = "signing.pem"
OWN_PUBLIC_KEY = "signing.pub.pem"
#: Some files of a model and a chain of certificates are a few thousand bytes.
MAX_SIGNATURE_BYTES = 2**20
_PUBLIC = b"-----BEGIN PUBLIC KEY-----"


class ModelSigning:
    """Signs with the key or certificate of the settings, else with a key that is made once; see `Signer`."""

    def __init__(self, settings: Settings) -> None:
        """Reads nothing yet.

        Args:
            settings: `signing_key`, `signing_key_password`, `signing_certificate`, `verify_key`,
                `verify_certificates` and `keys`.
        """
        self._settings = settings

    def sign(self, folder: Path, signature: Path) -> None:
        """See `Signer.sign`. What no trusted key or certificate would accept is not left behind.

        Raises:
            ServiceRefused: the key cannot be read or used, or is not one that `verify_key` trusts.
        """
        from model_signing import signing

        settings, config = self._settings, signing.Config().set_hashing_config(_everything())
        key = settings.signing_key or self._own_key()
        secret = settings.signing_key_password
        password = None if secret is None else secret.get_secret_value().encode()
        try:
            with ExitStack() as held:
                if settings.signing_certificate is not None:
                    config.use_certificate_signer(
                        # model-signing takes no password for this kind of key.
                        private_key=key if password is None else held.enter_context(_decrypted(key, password)),
                        signing_certificate=settings.signing_certificate,
                        # The leaf is the first in the file; that it is in its chain as well does no harm.
                        certificate_chain=[settings.signing_certificate],
                    )
                else:
                    config.use_elliptic_key_signer(private_key=key, password=password)
            config.sign(folder, signature)
        except Exception as error:  # the key's form, its curve, its password, its file
            raise _no_key(f"cannot sign with {key}: {type(error).__name__}: {error}") from None
        try:
            self.verify(folder, signature)
        except IntegrityError as error:
            signature.unlink(missing_ok=True)
            raise _no_key(f"{key} is not a key that is trusted here: {error}") from None

    def verify(self, folder: Path, signature: Path) -> Signed:
        """See `Signer.verify`. Of several trusted keys one is enough."""
        content = _read(signature)
        reasons = []
        with ExitStack() as held:
            # What is verified is what was read, not what the path holds a moment later.
            copy = held.enter_context(_file(content))
            for trust in self._trusted(held):
                try:
                    trust().verify(folder, copy)
                except Exception as error:  # a bundle of another kind fails in many ways, and none of them is a yes
                    reasons.append(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
                else:
                    return _statement(content)
        raise IntegrityError(
            explain(
                f"signature of {folder}",
                f"no trusted key signed exactly these files ({'; '.join(dict.fromkeys(reasons))[:500]})",
                remedy="fetch it again; where keys were changed, keep the former public key in OVERNIGHT_VERIFY_KEY",
            )
        )

    def _trusted(self, held: ExitStack) -> Iterator[Callable[[], Any]]:
        """Makers of model-signing's verifiers, one for every key and one for the certificates."""
        from model_signing import verifying

        settings = self._settings

        def by_key(path: Path) -> Callable[[], Any]:
            config = verifying.Config().set_hashing_config(_everything())
            return lambda: config.use_elliptic_key_verifier(public_key=path)

        if (roots := settings.verify_certificates) is not None:
            _must_be_there(roots)
            config = verifying.Config().set_hashing_config(_everything())
            yield lambda: config.use_certificate_verifier(certificate_chain=[roots])
        if settings.verify_key is not None:
            keys = _must_be_there(settings.verify_key).split(_PUBLIC)[1:]
            for key in keys:
                yield by_key(held.enter_context(_file(_PUBLIC + key)))
            if not keys:
                raise _no_key(f"{settings.verify_key} holds no public key (PEM)")
        elif roots is None:
            yield by_key(held.enter_context(_file(self._public_key())))

    def _public_key(self) -> bytes:
        """The public half (PEM) of the key that signs here. None is made to verify with.

        Raises:
            ServiceRefused: there is no key here.
        """
        from cryptography.hazmat.primitives import serialization

        settings = self._settings
        path = settings.signing_key or settings.keys / OWN_KEY
        content, secret = _must_be_there(path), settings.signing_key_password
        password = None if secret is None or settings.signing_key is None else secret.get_secret_value().encode()
        try:
            key = serialization.load_pem_private_key(content, password)
        except (ValueError, TypeError) as error:
            raise _no_key(f"cannot read {path}: {error}") from None
        return key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _own_key(self) -> Path:
        """The key of this installation, made at the first call. Of two processes that make it, one's key stays."""
        folder = self._settings.keys
        path = folder / OWN_KEY
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _appear(path, _new_key(), 0o600)
        if not (folder / OWN_PUBLIC_KEY).exists():  # for people: verification derives it from the key
            _appear(folder / OWN_PUBLIC_KEY, self._public_key(), 0o644)
        return path


def _everything() -> Any:
    """How a folder is hashed: every file, those of git too, which model-signing would leave out."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=(), ignore_git_paths=False)


def _statement(bundle: bytes) -> Signed:
    """What a bundle that was verified says."""
    payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
    files = {entry["name"]: entry["digest"] for entry in payload["predicate"]["resources"]}
    return Signed(name=payload["subject"][0]["name"], files=files)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _appear(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that appears whole, and never over one that is there."""
    handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the first moment
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
            os.fchmod(handle, mode)
        with suppress(FileExistsError):  # another process was first: its file counts
            os.link(partial, path)
    finally:
        Path(partial).unlink()


@contextmanager
def _file(content: bytes) -> Iterator[Path]:
    """A private file of this content, for a library that takes paths."""
    with tempfile.NamedTemporaryFile(prefix="overnight-signature-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)


@contextmanager
def _decrypted(key: Path, password: bytes) -> Iterator[Path]:
    """A key without its password, in memory alone: never on a disk."""
    from cryptography.hazmat.primitives import serialization

    if not hasattr(os, "memfd_create"):
        raise _no_key(f"{key} has a password: with a certificate that works on Linux alone")
    plain = serialization.load_pem_private_key(key.read_bytes(), password).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    handle = os.memfd_create("overnight-key")
    try:
        os.write(handle, plain)
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)


def _read(signature: Path) -> bytes:
    """A signature's bytes.

    Raises:
        IntegrityError: it is not there, no plain file, or too large to be one.
    """
    try:
        info = signature.lstat()
    except FileNotFoundError:
        raise IntegrityError(explain(f"signature {signature}", "it is missing")) from None
    if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_SIGNATURE_BYTES:
        raise IntegrityError(explain(f"signature {signature}", "a link, no plain file, or too large"))
    return signature.read_bytes()


def _must_be_there(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _no_key(f"cannot read {path}: {error.strerror}") from None


def _no_key(what: str) -> ServiceRefused:
    return ServiceRefused(
        explain(
            "signatures of models",
            what,
            allowed="keys on the curves P-256, P-384 and P-521 (PEM)",
            remedy="see OVERNIGHT_SIGNING_KEY and OVERNIGHT_VERIFY_KEY; a machine that only loads models needs the "
            "public key",
        )
    )
