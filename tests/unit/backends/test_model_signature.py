"""Signatures of model folders: what a trusted key signed verifies, and nothing else does."""

from __future__ import annotations

import base64
import json
import logging
import multiprocessing
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from pipelines.backends.model_signature import ModelSigning
from pipelines.errors import IntegrityError, ServiceRefused
from pipelines.settings import Settings

PASSWORD = "canary-of-a-password"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "flights"
    (folder / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"weights")
    (folder / "deep" / "card.json").write_text("{}")
    (folder / ".gitignore").write_text("a file like any other")
    return folder


@pytest.fixture
def signature(tmp_path: Path) -> Path:
    return tmp_path / "signature.json"


@pytest.fixture
def own(tmp_path: Path) -> ModelSigning:
    return ModelSigning(Settings(home=tmp_path / "home"))


def private(path: Path, key: Any = None, password: str | None = None) -> Path:
    """A private key as a file."""
    lock = form.BestAvailableEncryption(password.encode()) if password else form.NoEncryption()
    key = key or ec.generate_private_key(ec.SECP384R1())
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    return path


def public(path: Path, *keys: Any) -> Path:
    """The public halves of keys, one after the other."""
    spki = form.PublicFormat.SubjectPublicKeyInfo
    path.write_bytes(b"".join(key.public_key().public_bytes(form.Encoding.PEM, spki) for key in keys))
    return path


def test_without_a_key_in_the_settings_one_is_made_once_and_is_nobody_elses(
    own: ModelSigning, model: Path, signature: Path, tmp_path: Path
) -> None:
    own.sign(model, signature)
    key = tmp_path / "home" / "keys" / "signing.pem"
    first = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    own.sign(model, signature)
    assert key.read_bytes() == first
    signed = own.verify(model, signature)
    assert signed.name == "flights"
    assert sorted(signed.files) == [".gitignore", "deep/card.json", "model.onnx"]


def _sign(home: Path, model: Path, signature: Path, gate: Any) -> None:
    gate.wait()
    ModelSigning(Settings(home=home)).sign(model, signature)


def test_two_processes_that_sign_first_at_once_end_with_one_key(model: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, home = context.Barrier(4), tmp_path / "home"
    made = [tmp_path / f"{number}.json" for number in range(4)]
    processes = [context.Process(target=_sign, args=(home, model, path, gate)) for path in made]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    for path in made:
        ModelSigning(Settings(home=home)).verify(model, path)
    assert sorted(path.name for path in (home / "keys").iterdir()) == ["signing.pem", "signing.pub.pem"]


def _flip(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"weighty")


def _add(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "hook").write_text("model-signing itself would not look here")


def _link(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere")
    (folder / "model.onnx").symlink_to(folder.parent / "elsewhere")


def _remove(folder: Path) -> None:
    (folder / "deep" / "card.json").unlink()


@pytest.mark.parametrize("spoil", [_flip, _add, _link, _remove])
def test_a_folder_that_is_not_as_it_was_signed_is_refused(
    own: ModelSigning, model: Path, signature: Path, spoil: Callable[[Path], None]
) -> None:
    own.sign(model, signature)
    spoil(model)
    with pytest.raises(IntegrityError, match="no trusted key signed exactly these files"):
        own.verify(model, signature)


def _payload(bundle: dict[str, Any]) -> None:
    told = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    told["subject"][0]["name"] = "another"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(told).encode()).decode()


@pytest.mark.parametrize(
    "spoil",
    [
        _payload,
        lambda bundle: bundle["dsseEnvelope"]["signatures"].clear(),
        lambda bundle: bundle["verificationMaterial"].clear(),
        lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(sig=base64.b64encode(b"0" * 70).decode()),
        lambda bundle: bundle.clear(),
    ],
)
def test_a_signature_that_was_tampered_with_is_refused(
    own: ModelSigning, model: Path, signature: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    own.sign(model, signature)
    bundle = json.loads(signature.read_bytes())
    spoil(bundle)
    signature.write_text(json.dumps(bundle))
    with pytest.raises(IntegrityError):
        own.verify(model, signature)


def test_a_signature_that_is_missing_no_json_too_large_or_a_link_is_refused(
    own: ModelSigning, model: Path, signature: Path, tmp_path: Path
) -> None:
    own.sign(model, signature)
    good = signature.rename(tmp_path / "good.json")
    with pytest.raises(IntegrityError, match="it is missing"):
        own.verify(model, signature)
    for content in (b"", b"\x80\x04pickle", b" " * (2**20 + 1)):
        signature.write_bytes(content)
        with pytest.raises(IntegrityError):
            own.verify(model, signature)
    signature.unlink()
    signature.symlink_to(good)
    with pytest.raises(IntegrityError, match="a link"):
        own.verify(model, signature)


def test_another_installations_signature_is_refused_until_its_key_is_trusted(
    own: ModelSigning, model: Path, signature: Path, tmp_path: Path
) -> None:
    mine, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1())
    ModelSigning(Settings(signing_key=private(tmp_path / "theirs.pem", theirs))).sign(model, signature)
    with pytest.raises(ServiceRefused, match="cannot read"):
        own.verify(model, signature)  # no key here, and none is made to verify with
    assert not (tmp_path / "home" / "keys").exists()
    only_mine = Settings(verify_key=public(tmp_path / "mine.pub", mine))
    with pytest.raises(IntegrityError, match="Key mismatch"):
        ModelSigning(only_mine).verify(model, signature)
    both = Settings(verify_key=public(tmp_path / "both.pub", mine, theirs))
    assert ModelSigning(both).verify(model, signature).name == "flights"


def test_a_key_that_is_not_trusted_here_signs_nothing(model: Path, signature: Path, tmp_path: Path) -> None:
    trusted = public(tmp_path / "pub", ec.generate_private_key(ec.SECP256R1()))
    settings = Settings(signing_key=private(tmp_path / "key.pem"), verify_key=trusted)
    with pytest.raises(ServiceRefused, match="not a key that is trusted here"):
        ModelSigning(settings).sign(model, signature)
    assert not signature.exists()


def test_a_password_opens_the_key_and_is_never_seen(
    model: Path, signature: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    key = private(tmp_path / "key.pem", password=PASSWORD)
    settings = Settings(signing_key=key, signing_key_password=PASSWORD)
    signing = ModelSigning(settings)
    with caplog.at_level(logging.DEBUG):
        signing.sign(model, signature)
        signing.verify(model, signature)
        refusals = []
        for wrong in (None, f"{PASSWORD}-but-wrong"):
            with pytest.raises(ServiceRefused) as refused:
                ModelSigning(Settings(signing_key=key, signing_key_password=wrong)).sign(model, signature)
            refusals.append(str(refused.value))
    said = capfd.readouterr()
    seen = [caplog.text, said.out, said.err, repr(settings), repr(signing), signature.read_text(), *refusals]
    assert not [text for text in seen if PASSWORD in text]


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256K1())])
def test_a_key_of_another_kind_is_refused(key: Any, model: Path, signature: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceRefused, match="P-256"):
        ModelSigning(Settings(signing_key=private(tmp_path / "key.pem", key))).sign(model, signature)


def certificate(subject: str, key: Any, issuer: str, by: Any, *, authority: bool) -> bytes:
    """A certificate that is good for a day."""
    now = datetime.now(UTC)
    use = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in (subject, issuer)]
    made = (
        x509.CertificateBuilder()
        .subject_name(names[0])
        .issuer_name(names[1])
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(use, critical=True)
        .sign(by, hashes.SHA256())
    )
    return made.public_bytes(form.Encoding.PEM)


@pytest.mark.parametrize("password", [None, PASSWORD])
def test_a_certificate_counts_when_its_chain_leads_to_a_trusted_root(
    password: str | None, model: Path, signature: Path, tmp_path: Path
) -> None:
    root, middle, leaf, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(4))
    chain, roots, others = tmp_path / "chain.pem", tmp_path / "roots.pem", tmp_path / "others.pem"
    chain.write_bytes(
        certificate("leaf", leaf, "middle", middle, authority=False)
        + certificate("middle", middle, "root", root, authority=True)
    )
    roots.write_bytes(certificate("root", root, "root", root, authority=True))
    others.write_bytes(certificate("root", stranger, "root", stranger, authority=True))
    key = private(tmp_path / "leaf.pem", leaf, password)
    settings = Settings(
        signing_key=key, signing_key_password=password, signing_certificate=chain, verify_certificates=roots
    )
    ModelSigning(settings).sign(model, signature)
    assert ModelSigning(Settings(verify_certificates=roots)).verify(model, signature).name == "flights"
    with pytest.raises(IntegrityError):
        ModelSigning(Settings(verify_certificates=others)).verify(model, signature)
    with pytest.raises(IntegrityError):
        ModelSigning(Settings(verify_key=public(tmp_path / "leaf.pub", leaf))).verify(model, signature)


def test_anybody_verifies_with_the_tool_of_model_signing(
    own: ModelSigning, model: Path, signature: Path, tmp_path: Path
) -> None:
    own.sign(model, signature)
    copy = shutil.copytree(model, tmp_path / "downloaded")
    key = tmp_path / "home" / "keys" / "signing.pub.pem"
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        "--no-ignore-git-paths",
        "--signature",
        str(signature),
    ]
    command += ["--no-ignore-git-paths", "--public_key", str(key), str(copy)]
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (copy / "model.onnx").write_bytes(b"other weights")
    assert subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode != 0
