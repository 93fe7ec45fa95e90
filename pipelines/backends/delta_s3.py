"""`FileStore` in an S3 bucket, through boto3; delta-rs and Polars are told the same endpoint and credentials.

Every request is tried a few times with growing, jittered pauses and then given up. Objects appear whole, so there are
no temporary objects; only an upload in several parts can be left unfinished, which `sweep` aborts.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.backends.delta_files import Seen, Stored, gone, other_bytes, unavailable
from pipelines.errors import UnavailableError, explain
from pipelines.parquet import digest as digest_of_file
from pipelines.parquet import digester

_PIECE = 2**20
_ATTEMPTS = 5
_CONNECT_SECONDS, _READ_SECONDS = 5, 30
_DEADLINE_SECONDS = 60
_MISSING = {"404", "NoSuchKey", "NotFound"}
_TAKEN = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}


class S3Files:
    """The objects below one prefix. Clients are made when they are first needed, never before a fork."""

    def __init__(self, root: str, cache: Path) -> None:
        """Connects to nothing.

        Args:
            root: `s3://bucket/prefix`. Credentials, region and endpoint are boto3's: the AWS_ variables, a profile, a
                role.
            cache: folder of this machine's copies, named by their digests.
        """
        self._bucket, _, self._prefix = root.removeprefix("s3://").partition("/")
        self._cache = cache

    # -- clients -----------------------------------------------------------------------------------------------------

    @cached_property
    def _session(self) -> Any:
        import boto3

        return boto3.Session()

    @cached_property
    def _client(self) -> Any:
        from botocore.config import Config

        return self._session.client(
            "s3",
            config=Config(
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            ),
        )

    @property
    def polars_options(self) -> dict[str, Any]:
        """Endpoint and credentials; asked anew each time, since a role's credentials expire."""
        return {**self._access, "max_retries": _ATTEMPTS - 1, "retry_timeout_ms": _DEADLINE_SECONDS * 1000}

    @property
    def delta_options(self) -> dict[str, str]:
        """The same, and commits by conditional puts: of two writers of one version, one wins."""
        return {
            **self._access,
            "max_retries": str(_ATTEMPTS - 1),
            "retry_timeout": f"{_DEADLINE_SECONDS}s",
            "connect_timeout": f"{_CONNECT_SECONDS}s",
            "timeout": f"{_READ_SECONDS}s",
            "aws_conditional_put": "etag",
        }

    @property
    def _access(self) -> dict[str, str]:
        found = self._session.get_credentials()
        if found is None:
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
            raise UnavailableError(explain(self.uri(""), "no credentials for S3", remedy=remedy))
        credentials = found.get_frozen_credentials()
        access: dict[str, str] = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_region": self._client.meta.region_name,
        }
        if credentials.token:
            access["aws_session_token"] = credentials.token
        endpoint: str = self._client.meta.endpoint_url
        if ".amazonaws.com" not in endpoint:
            access["aws_endpoint_url"] = endpoint
        if endpoint.startswith("http://"):
            access["aws_allow_http"] = "true"
        return access

    # -- files -------------------------------------------------------------------------------------------------------

    def uri(self, path: str) -> str:  # noqa: D102
        return f"s3://{self._bucket}/{self._key(path)}"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:  # noqa: D102
        with _answering(str(self._cache)):
            self._cache.mkdir(parents=True, exist_ok=True)
        path = self._cache / f".{secrets.token_hex(6)}.tmp"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def take(self, scratch: Path, path: str, digest: str) -> None:  # noqa: D102
        self.put(scratch, path)
        scratch.replace(self._cached(digest))

    def put(self, source: Path, path: str) -> None:  # noqa: D102
        self._ask(path, lambda: self._client.upload_file(str(source), self._bucket, self._key(path)))

    def copy(self, source: str, target: str, tag: str) -> bool:  # noqa: D102
        origin = {"Bucket": self._bucket, "Key": self._key(source)}
        same = {"CopySourceIfMatch": tag}
        try:
            self._ask(target, lambda: self._client.copy(origin, self._bucket, self._key(target), ExtraArgs=same))
        except _Missing:
            return False
        except _Taken:
            raise other_bytes(self.uri(source)) from None
        return True

    def see(self, path: str) -> Seen:  # noqa: D102
        def read() -> Seen:
            got = self._client.get_object(Bucket=self._bucket, Key=self._key(path))
            digest = digester()
            for piece in got["Body"].iter_chunks(_PIECE):
                digest.update(piece)
            return Seen(digest=digest.hexdigest(), tag=got["ETag"])

        seen: Seen = self._found(path, read)
        return seen

    def local(self, path: str, digest: str) -> Path:  # noqa: D102
        copy = self._cached(digest)
        with _answering(str(copy)):
            if copy.exists():
                if digest_of_file(copy) == digest and self.find(path) is not None:
                    return copy
                copy.unlink(missing_ok=True)
        with self.scratch() as scratch:
            key = self._key(path)
            self._found(path, lambda: self._client.download_file(self._bucket, key, str(scratch)))
            if digest_of_file(scratch) != digest:
                raise other_bytes(self.uri(path))
            scratch.replace(copy)
        return copy

    def forget(self, digest: str) -> None:  # noqa: D102
        with _answering(str(self._cache)):
            self._cached(digest).unlink(missing_ok=True)

    def find(self, path: str) -> Stored | None:  # noqa: D102
        try:
            got = self._ask(path, lambda: self._client.head_object(Bucket=self._bucket, Key=self._key(path)))
        except _Missing:
            return None
        return Stored(path=path, bytes=got["ContentLength"], modified=got["LastModified"])

    def read(self, path: str) -> bytes:  # noqa: D102
        def read() -> bytes:
            return bytes(self._client.get_object(Bucket=self._bucket, Key=self._key(path))["Body"].read())

        data: bytes = self._found(path, read)
        return data

    def write(self, path: str, data: bytes, *, new: bool = False) -> bool:  # noqa: D102
        only = {"IfNoneMatch": "*"} if new else {}
        key = self._key(path)
        try:
            self._ask(path, lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **only))
        except _Taken:
            return False
        return True

    def tagged(self, path: str) -> tuple[bytes, str] | None:
        """A small object with the tag that `swap` compares, or None when there is none."""

        def read() -> tuple[bytes, str]:
            got = self._client.get_object(Bucket=self._bucket, Key=self._key(path))
            return bytes(got["Body"].read()), got["ETag"]

        try:
            found: tuple[bytes, str] = self._ask(path, read)
        except _Missing:
            return None
        return found

    def swap(self, path: str, data: bytes, tag: str | None) -> bool:
        """Writes a small object in the place of the one with this tag (None: of none); False when another is there."""
        only = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        key = self._key(path)
        try:
            self._ask(path, lambda: self._client.put_object(Bucket=self._bucket, Key=key, Body=data, **only))
        except (_Taken, _Missing):
            return False
        return True

    def delete(self, path: str) -> None:  # noqa: D102
        self._ask(path, lambda: self._client.delete_object(Bucket=self._bucket, Key=self._key(path)))

    def below(self, folder: str) -> Iterator[Stored]:  # noqa: D102
        for page in self._pages("list_objects_v2", Prefix=f"{self._key(folder).rstrip('/')}/"):
            for found in page.get("Contents", ()):
                path = found["Key"].removeprefix(self._key(""))
                yield Stored(path=path, bytes=found["Size"], modified=found["LastModified"])

    def folders(self) -> list[str]:  # noqa: D102
        root = self._key("")
        pages = self._pages("list_objects_v2", Prefix=root, Delimiter="/")
        return sorted(
            found["Prefix"].removeprefix(root).rstrip("/") for page in pages for found in page.get("CommonPrefixes", ())
        )

    def sweep(self, before: datetime, *, dry_run: bool) -> list[str]:  # noqa: D102
        swept = []
        for page in self._pages("list_multipart_uploads", Prefix=self._key("")):
            for found in page.get("Uploads", ()):
                if found["Initiated"] < before:
                    swept.append(f"s3://{self._bucket}/{found['Key']} (unfinished upload)")
                    if not dry_run:
                        self._abort(found["Key"], found["UploadId"])
        with _answering(str(self._cache)):
            for path in sorted(self._cache.glob("*")):
                with contextlib.suppress(FileNotFoundError):
                    ours = path.suffix in (".parquet", ".tmp")
                    if ours and datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                        swept.append(str(path))
                        if not dry_run:
                            path.unlink()
        return swept

    # -- inner -------------------------------------------------------------------------------------------------------

    def _abort(self, key: str, upload: str) -> None:
        with contextlib.suppress(_Missing):
            self._ask(key, lambda: self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload))

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _cached(self, digest: str) -> Path:
        return self._cache / f"{digest}.parquet"

    def _pages(self, operation: str, **arguments: str) -> Iterator[Any]:
        pages = iter(self._client.get_paginator(operation).paginate(Bucket=self._bucket, **arguments))
        while (page := self._ask(arguments["Prefix"], lambda: next(pages, None))) is not None:
            yield page

    def _found(self, path: str, call: Callable[[], Any]) -> Any:
        try:
            return self._ask(path, call)
        except _Missing:
            raise gone(self.uri(path)) from None

    def _ask(self, path: str, call: Callable[[], Any]) -> Any:
        """Makes a request and puts its failure into our words; what callers handle is `_Missing` and `_Taken`."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        where = self.uri(path)
        try:
            return call()
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise _Missing(where) from None
            if code in _TAKEN:
                raise _Taken(where) from None
            raise unavailable(where, error) from error
        except (BotoCoreError, Boto3Error, OSError) as error:
            raise unavailable(where, error) from error


class _Missing(Exception):
    """There is no such object."""


class _Taken(Exception):
    """A condition of the request did not hold."""


@contextlib.contextmanager
def _answering(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unavailable(where, error) from error
