"""Files for whoever waits for `_SUCCESS` and follows the manifest, on a disk and in S3."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.backends import sink_places
from pipelines.backends.sink_files import FileSink
from pipelines.errors import ServiceRefused, SpecError, UnavailableError
from tests.cases.handed import CANARY, DAY, NEXT, consignment, deliver_by, file_sink, rows
from tests.contracts.stores import interpose
from tests.servers.seaweed import BUCKET


class Reader:
    """Somebody who reads what was delivered, as the docstring of the sink tells it."""

    def __init__(self, root: Path | str) -> None:
        self.root = str(root)

    def names(self, partition: str = DAY) -> set[str]:
        """What lies there, but for what begins with a dot."""
        if self.root.startswith("s3://"):
            prefix = self._key(partition, "")
            found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())
            return {each["Key"].removeprefix(prefix) for each in found}
        folder = Path(self.root) / "uc" / f"partition={partition}"
        return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()

    def read(self, name: str, partition: str = DAY) -> bytes:
        if self.root.startswith("s3://"):
            key = self._key(partition, name)
            return bytes(boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())
        return (Path(self.root) / "uc" / f"partition={partition}" / name).read_bytes()

    def manifest(self, partition: str = DAY) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read("manifest.json", partition))
        return found

    def frame(self, partition: str = DAY) -> pl.DataFrame | None:
        """The rows, or None before `_SUCCESS` is there; every digest is compared."""
        if "_SUCCESS" not in self.names(partition):
            return None
        frames = []
        for file in self.manifest(partition)["files"]:
            data = self.read(file["name"], partition)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
            frames.append(pl.read_parquet(io.BytesIO(data)))
            assert frames[-1].height == file["rows"]
        return pl.concat(frames)

    def _key(self, partition: str, name: str) -> str:
        return f"{self.root.removeprefix(f's3://{BUCKET}/')}/uc/partition={partition}/{name}"


Make = Callable[..., FileSink]


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder, or a prefix of a real S3 server."""
    if request.param == "s3":
        request.getfixturevalue("seaweed")
        return f"s3://{BUCKET}/handed-{tmp_path.parts[-2]}-{tmp_path.name}"
    (tmp_path / "there").mkdir()
    return str(tmp_path / "there")


@pytest.fixture
def make(root: str, tmp_path: Path) -> Make:
    """Another process's sink: it remembers nothing."""
    return lambda **said: file_sink(root, tmp_path / "cache", **said)


def test_a_partition_is_there_with_a_manifest_and_the_key_in_success(make: Make, root: str) -> None:
    frame = rows(0.1, 0.7, 0.3)
    done = make().deliver(consignment(frame, "a"))
    reader = Reader(root)
    found = reader.frame()
    assert found is not None
    assert found.equals(frame)
    assert found.schema == frame.schema
    manifest = reader.manifest()
    assert reader.read("_SUCCESS") == b"a" * 64
    assert (manifest["key"], manifest["rows"], manifest["snapshot"]) == ("a" * 64, 3, "delta:uc/predictions@3")
    assert (manifest["model_version"], manifest["columns"]) == (1, frame.columns)
    assert reader.names() == {"_SUCCESS", "manifest.json", manifest["files"][0]["name"]}
    assert (done.state, done.rows, done.where) == ("delivered", 3, f"{root}/uc/partition={DAY}")


def test_the_same_key_again_changes_nothing(make: Make, root: str) -> None:
    deliver_by(make(), rows(0.1, 0.7), "a")
    reader = Reader(root)
    before = {name: reader.read(name) for name in reader.names()}
    assert deliver_by(make(), rows(0.1, 0.7), "a") == "unchanged"
    assert {name: reader.read(name) for name in reader.names()} == before


def test_a_restated_partition_takes_the_place_of_the_former_and_no_other(make: Make, root: str) -> None:
    deliver_by(make(), rows(0.1, 0.7), "a")
    deliver_by(make(), rows(0.2), "n", partition=NEXT)
    assert deliver_by(make(), rows(0.9), "b") == "delivered"
    reader = Reader(root)
    assert reader.frame().equals(rows(0.9))  # type: ignore[union-attr]
    assert reader.frame(NEXT).equals(rows(0.2))  # type: ignore[union-attr]
    assert len(reader.names()) == 3
    assert reader.read("_SUCCESS") == b"b" * 64
    # And back: the former key is other rows than what is there.
    assert deliver_by(make(), rows(0.1, 0.7), "a") == "delivered"
    assert reader.frame().equals(rows(0.1, 0.7))  # type: ignore[union-attr]


@pytest.mark.parametrize("point", ["deliver.written", "deliver.listed", "deliver.marked"])
def test_a_reader_at_any_moment_of_a_restatement_has_the_old_rows_or_the_new(
    make: Make, root: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver_by(make(), rows(0.1, 0.7), "a")
    seen: list[pl.DataFrame | None] = []
    interpose(monkeypatch, point, lambda: seen.append(Reader(root).frame()))
    deliver_by(make(), rows(0.9), "b")
    (found,) = seen
    assert found is not None
    assert found.equals(rows(0.1, 0.7) if point == "deliver.written" else rows(0.9))


@pytest.mark.parametrize("point", ["deliver.written", "deliver.listed"])
def test_a_reader_waits_for_success_while_a_first_delivery_is_on_its_way(
    make: Make, root: str, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[pl.DataFrame | None] = []
    interpose(monkeypatch, point, lambda: seen.append(Reader(root).frame()))
    deliver_by(make(), rows(0.9), "b")
    assert seen == [None]


@pytest.mark.parametrize("rival", ["a", "b", "c"])
@pytest.mark.parametrize("point", ["deliver.written", "deliver.listed", "deliver.marked"])
def test_of_two_that_deliver_at_once_one_set_of_rows_is_whole_and_nothing_else_is_left(
    make: Make, root: str, point: str, rival: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lock keeps the other process out: in S3 there is none, and a disk may be another machine's too."""
    monkeypatch.setattr("pipelines.backends.sink_places.DiskPlace._wait", lambda *_: None)
    frames = {"a": rows(0.1, 0.7), "b": rows(0.9), "c": rows(0.4, 0.5, 0.6)}
    deliver_by(make(), frames["a"], "a")
    interpose(monkeypatch, point, lambda: deliver_by(make(), frames[rival], rival))
    deliver_by(make(), frames["b"], "b")
    reader = Reader(root)
    assert len(reader.names()) == 3
    held = reader.manifest()["key"][0]
    assert held in {"b", rival}
    assert reader.frame().equals(frames[held])  # type: ignore[union-attr]
    assert reader.read("_SUCCESS").decode() == held * 64
    assert deliver_by(make(), frames[held], held) == "unchanged"


def test_on_a_disk_the_second_of_two_waits_for_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    sink = file_sink(tmp_path / "there", tmp_path / "cache")
    states: list[str] = []
    second = threading.Thread(target=lambda: states.append(deliver_by(sink, rows(0.9), "b")))
    interpose(monkeypatch, "deliver.written", second.start)
    states.append(deliver_by(sink, rows(0.9), "b"))
    second.join()
    assert sorted(states) == ["delivered", "unchanged"]
    monkeypatch.setattr(sink_places, "_PATIENCE", 0.1)
    late: list[BaseException] = []

    def third() -> None:
        with pytest.raises(UnavailableError, match="somebody else") as caught:
            deliver_by(sink, rows(0.8), "c")
        late.append(caught.value)

    interpose(monkeypatch, "deliver.written", third)
    deliver_by(sink, rows(0.7), "d")
    assert len(late) == 1


def test_a_file_that_somebody_removed_or_cut_off_is_delivered_again(make: Make, root: str) -> None:
    deliver_by(make(), rows(0.1, 0.7), "a")
    reader = Reader(root)
    name = reader.manifest()["files"][0]["name"]
    if root.startswith("s3://"):
        boto3.client("s3").delete_object(Bucket=BUCKET, Key=reader._key(DAY, name))
    else:
        path = Path(root) / "uc" / f"partition={DAY}" / name
        path.write_bytes(path.read_bytes()[:100])
    assert deliver_by(make(), rows(0.1, 0.7), "a") == "delivered"
    assert reader.frame().equals(rows(0.1, 0.7))  # type: ignore[union-attr]


def test_an_empty_partition_is_delivered_as_no_rows(make: Make, root: str) -> None:
    assert deliver_by(make(), rows(), "a") == "delivered"
    assert Reader(root).frame().equals(rows())  # type: ignore[union-attr]
    assert deliver_by(make(format="csv"), rows(), "b") == "delivered"
    (name,) = (file["name"] for file in Reader(root).manifest()["files"])
    assert Reader(root).read(name).decode().splitlines() == [",".join(rows().columns)]


def test_a_folder_of_another_delivery_is_left_alone(make: Make, root: str) -> None:
    deliver_by(make(), rows(0.1), "a")
    with pytest.raises(ServiceRefused, match=r"uc: crm.*another folder"):
        make().deliver(consignment(rows(0.2), "b", delivery="other"))
    assert Reader(root).frame().equals(rows(0.1))  # type: ignore[union-attr]


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no such folder"):
        deliver_by(file_sink(tmp_path / "gone", tmp_path / "cache"), rows(0.1), "a")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize(
    "address", ["relative/path", f"postgresql://u:{CANARY}@h/d", f"s3://key:{CANARY}@bucket/x", f"https://{CANARY}", ""]
)
def test_an_address_that_is_no_place_for_files_is_refused_without_being_told(address: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'there' is no place for files") as caught:
        file_sink(address, tmp_path)
    assert CANARY not in str(caught.value)


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _csv(frame: pl.DataFrame, tmp_path: Path) -> str:
    (tmp_path / "there").mkdir(exist_ok=True)
    deliver_by(file_sink(tmp_path / "there", tmp_path / "cache", format="csv"), frame, str(hash(str(frame))))
    (file,) = Reader(tmp_path / "there").manifest()["files"]
    return Reader(tmp_path / "there").read(file["name"]).decode()


def test_csv_holds_instants_in_utc_nulls_apart_from_empty_text_and_what_is_nested_as_json(tmp_path: Path) -> None:
    at = datetime(2024, 3, 2, 4, 30, 0, 5, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "text": ["a,b", 'say "x"', "two\nlines", "", None],
            "at": pl.Series([at] * 5).dt.convert_time_zone("America/New_York"),
            "reasons": [[{"column": "amount", "value": 0.5}], [], None, [{"column": "x", "value": math.nan}], None],
            "yes": [True, False, None, None, None],
        }
    )
    text = _csv(frame, tmp_path)
    found = list(csv.reader(io.StringIO(text)))
    assert found[0] == ["text", "at", "reasons", "yes"]
    assert [row[0] for row in found[1:]] == ["a,b", 'say "x"', "two\nlines", "", ""]
    assert {row[1] for row in found[1:]} == {"2024-03-02T04:30:00.000005Z"}
    assert json.loads(found[1][2]) == [{"column": "amount", "value": 0.5}]
    assert json.loads(found[4][2]) == [{"column": "x", "value": None}]
    assert [row[3] for row in found[1:]] == ["true", "false", "", "", ""]
    again = pl.read_csv(text.encode())
    assert again["text"].to_list() == ["a,b", 'say "x"', "two\nlines", "", None]


def test_csv_leaves_text_as_it_is_even_where_a_spreadsheet_would_compute_it(tmp_path: Path) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "a\rb"]
    found = list(csv.reader(io.StringIO(_csv(pl.DataFrame({"text": texts}), tmp_path), newline="")))
    assert [row[0] for row in found[1:]] == texts


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats(width=32)), min_size=1, max_size=20))
def test_csv_floats_read_back_are_the_same_numbers(pairs: list[tuple[float, float]]) -> None:
    from pipelines.backends.sink_files import _csv as written
    from pipelines.backends.sink_rows import flat

    double, single = zip(*pairs, strict=True)
    frame = pl.DataFrame(
        {"double": double, "single": single}, schema={"double": pl.Float64, "single": pl.Float32}, strict=False
    )
    lines = list(csv.reader(io.StringIO(written(flat(frame), header=False).decode())))
    back = pl.DataFrame({"single": [float(line[1]) for line in lines]}).select(pl.col("single").cast(pl.Float32))
    for line, want in zip(lines, double, strict=True):
        assert float(line[0]) == want or math.isnan(want)
    assert back["single"].equals(frame["single"])
