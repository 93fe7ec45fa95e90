"""Files in the jobs' bucket: named by what they hold, uploaded once, encrypted when a key is set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.backends.sagemaker_verdicts import aws_calls
from pipelines.errors import IntegrityError, explain

_DIGEST = "overnight-sha256"


class Bucket:
    """One bucket below one prefix."""

    def __init__(self, client: Any, bucket: str, prefix: str, kms_key: str | None) -> None:
        """Takes a boto3 client of S3."""
        self._client, self._bucket, self._prefix = client, bucket, prefix.strip("/")
        self._extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}

    def uri(self, folder: str) -> str:
        """`s3://bucket/prefix/folder/`."""
        return f"s3://{self._bucket}/{self._key(folder)}/"

    def put(self, folder: str, name: str, content: bytes) -> bool:
        """Uploads bytes unless they are there; whether it did."""
        key, digest = f"{self._key(folder)}/{name}", hashlib.sha256(content).hexdigest()
        with aws_calls(f"s3://{self._bucket}/{key}"):
            if self._holds(key, digest, len(content)):
                return False
            self._client.put_object(
                Bucket=self._bucket, Key=key, Body=content, Metadata={_DIGEST: digest}, **self._extra
            )
            return True

    def put_file(self, folder: str, path: Path) -> bool:
        """Uploads a file, in parts when it is large, unless it is there; whether it did."""
        key = f"{self._key(folder)}/{path.name}"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with aws_calls(f"s3://{self._bucket}/{key}"):
            if self._holds(key, digest, path.stat().st_size):
                return False
            extra = {"Metadata": {_DIGEST: digest}, **self._extra}
            self._client.upload_file(str(path), self._bucket, key, ExtraArgs=extra)
            return True

    def fetch(self, uri: str, target: Path, max_bytes: int) -> None:
        """Downloads one object of any bucket.

        Raises:
            IntegrityError: it is larger than it may be.
        """
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        with aws_calls(uri):
            size = self._client.head_object(Bucket=bucket, Key=key)["ContentLength"]
            if size > max_bytes:
                raise IntegrityError(explain(uri, f"{size} bytes", allowed=f"{max_bytes} bytes"))
            self._client.download_file(bucket, key, str(target))

    def _key(self, folder: str) -> str:
        return "/".join(filter(None, [self._prefix, folder]))

    def _holds(self, key: str, digest: str, size: int) -> bool:
        from botocore.exceptions import ClientError

        try:
            found: Mapping[str, Any] = self._client.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey"):
                return False
            raise
        return bool(found["ContentLength"] == size and found["Metadata"].get(_DIGEST) == digest)
