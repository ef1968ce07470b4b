"""Files of recorded requests: format, order and limits."""

from __future__ import annotations

import gzip
import stat
import struct
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from nearline.errors import InvalidRequest, SnapshotCorrupt
from nearline.internal.v1.traffic_pb2 import RecordedRequest
from nearline.store.snapshot import Store
from nearline.store.traffic import (
    decode_traffic,
    encode_traffic,
    read_traffic,
    remove_old_traffic,
    traffic_names,
    write_traffic,
)


def _request(number: int) -> RecordedRequest:
    request = RecordedRequest(snapshot_id=f"s{number}", ids=["a", "b"], scores=[0.5, 0.25])
    request.search.query.items.ids.append(str(number))
    return request


def _write(store: Store, name: str, data: bytes) -> None:
    store.files.create(f"shop/traffic/{name}", data)


@given(ids=st.lists(st.lists(st.text(max_size=20), max_size=5), max_size=8))
def test_decoding_reverses_encoding(ids: list[list[str]]) -> None:
    requests = [RecordedRequest(ids=one) for one in ids]
    assert decode_traffic(encode_traffic(requests)) == requests


def test_the_encoded_bytes_follow_the_documented_format() -> None:
    one, two = _request(1), RecordedRequest()
    plain = gzip.decompress(encode_traffic([one, two]))
    message = one.SerializeToString()
    assert plain == struct.pack("<I", len(message)) + message + struct.pack("<I", 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no gzip",
        encode_traffic([_request(1)])[:-9],
        gzip.compress(b"\x01\x00"),
        gzip.compress(struct.pack("<I", 0) + b"\x00\x00\x00"),
        gzip.compress(struct.pack("<I", 5) + b"abc"),
        gzip.compress(struct.pack("<I", 3) + b"\xff\xff\xff"),
        gzip.compress(bytes((1 << 28) + 4), compresslevel=1),
    ],
    ids=[
        "empty",
        "no-gzip",
        "cut-gzip",
        "cut-length",
        "almost-length",
        "cut-message",
        "no-message",
        "bomb",
    ],
)
def test_bytes_of_another_format_are_refused(data: bytes) -> None:
    if not data:
        assert decode_traffic(data) == []
        return
    with pytest.raises(SnapshotCorrupt, match="traffic/x is not a file of recorded requests"):
        decode_traffic(data, "traffic/x")


def test_the_newest_requests_are_read_first_up_to_a_limit(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _write(store, "20260101T000000Z-00000a.pb.gz", encode_traffic(map(_request, [1, 2])))
    _write(store, "20260101T000001Z-000000.pb.gz", encode_traffic(map(_request, [3, 4, 5])))
    _write(store, "notes.txt", b"not one of ours")
    assert [one.snapshot_id for one in read_traffic(store, "shop", 9)] == [
        "s5",
        "s4",
        "s3",
        "s2",
        "s1",
    ]
    assert [one.snapshot_id for one in read_traffic(store, "shop", 4)] == ["s5", "s4", "s3", "s2"]
    assert read_traffic(store, "shop", 0) == []
    assert read_traffic(store, "other", 9) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    _write(store, "20260101T000000Z-00000a.pb.gz", b"torn")
    with pytest.raises(SnapshotCorrupt, match=r"20260101T000000Z-00000a\.pb\.gz .* remove it"):
        read_traffic(store, "shop", 1)


def test_files_beyond_a_number_are_removed_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for second in range(5):
        _write(store, f"20260101T00000{second}Z-00000a.pb.gz", encode_traffic([_request(second)]))
    _write(store, "20260101T000000Z.txt", b"not one of ours")
    ages = timedelta(days=36_500)
    assert remove_old_traffic(store, "shop", 2, ages) == 3
    assert traffic_names(store, "shop") == [
        "20260101T000004Z-00000a.pb.gz",
        "20260101T000003Z-00000a.pb.gz",
    ]
    assert store.files.holds("shop/traffic/20260101T000000Z.txt")
    name = write_traffic(store, "shop", [_request(9)])
    assert traffic_names(store, "shop")[0] == name
    assert remove_old_traffic(store, "shop", 9, timedelta(days=30)) == 2
    assert [one.snapshot_id for one in read_traffic(store, "shop", 9)] == ["s9"]


def test_a_collection_name_cannot_escape_the_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        write_traffic(Store(tmp_path), "../shop", [_request(1)])


def test_only_this_user_may_read_what_people_asked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = tmp_path / "shop" / "traffic"
    folder.mkdir(parents=True, mode=0o755)
    name = write_traffic(store, "shop", [_request(1)])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert read_traffic(store, "shop", 5) == [_request(1)]
