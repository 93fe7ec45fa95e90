"""The block store under lakeFS: where bytes are removed for good. lakeFS itself only forgets their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.backends.lakefs_client import Repository
from pipelines.errors import UnavailableError, explain


class Blocks:
    """Deletes objects by the addresses that lakeFS gives them."""

    def __init__(self, repository: Repository, folder: Path | None) -> None:
        """Connects to nothing.

        Args:
            folder: the folder of a local block store, as this machine sees it.
        """
        self._repository = repository
        self._folder = folder

    @property
    def reachable(self) -> bool:
        """Whether `remove` can work here."""
        return self._repository.namespace.startswith("s3://") or (self._folder is not None and self._folder.is_dir())

    def remove(self, addresses: Iterable[str]) -> None:
        """Deletes objects for good; nothing happens to those that are gone.

        Raises:
            UnavailableError: the block store cannot be reached from here.
        """
        # The end of an address is its own; what comes before is as the server sees it.
        names = ["data/" + address.rpartition("/data/")[2] for address in addresses]
        if not names:
            return
        if self._repository.namespace.startswith("s3://"):
            self._remove_from_s3(names)
            return
        if not self._repository.namespace.startswith("local://") or self._folder is None or not self._folder.is_dir():
            raise UnavailableError(
                explain(
                    self._repository.namespace,
                    "the block store cannot be reached from this machine, so no byte was removed",
                    allowed="s3:// with the AWS_ variables, or local:// with OVERNIGHT_LAKEFS_BLOCKSTORE",
                    remedy="set OVERNIGHT_LAKEFS_BLOCKSTORE to the server's LAKEFS_BLOCKSTORE_LOCAL_PATH, then repeat",
                )
            )
        root = (self._folder / self._repository.namespace.removeprefix("local://")).resolve()
        for name in names:
            path = (root / name).resolve()
            if not path.is_relative_to(root / "data"):
                raise UnavailableError(
                    explain(self._repository.namespace, f"{name!r} lies outside the repository's bytes")
                )
            path.unlink(missing_ok=True)

    def _remove_from_s3(self, names: list[str]) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        where = urlsplit(self._repository.namespace)
        keys = [f"{where.path.strip('/')}/{name}".lstrip("/") for name in names]
        try:
            client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, connect_timeout=5))
            for key in keys:
                client.delete_object(Bucket=where.netloc, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise UnavailableError(
                explain(
                    self._repository.namespace,
                    f"the bytes could not be removed ({type(error).__name__})",
                    remedy="set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the block store",
                )
            ) from None
