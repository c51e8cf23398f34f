"""Content types and encodings of request bodies."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.receive.request import Form, form_of, unpack
from topics.errors import MalformedRequestError, RequestTooLargeError

MIB = 1 << 20


def bare_deflate(body: bytes) -> bytes:
    """Deflate without zlib's header, as some clients send it."""
    return zlib.compress(body, wbits=-15)


PACKERS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate ": bare_deflate,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
    "": bytes,
}


@given(st.binary(max_size=2000))
@pytest.mark.parametrize("encoding", PACKERS)
def test_every_encoding_gives_the_body_back(encoding: str, body: bytes) -> None:
    assert unpack(PACKERS[encoding](body), encoding, MIB) == body


def test_gzip_members_and_zstd_frames_may_follow_each_other() -> None:
    assert unpack(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 10) == b"ab"
    packer = zstandard.ZstdCompressor()
    assert unpack(packer.compress(b"a") + packer.compress(b"b"), "zstd", 10) == b"ab"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_a_bomb_is_refused_before_it_takes_memory(encoding: str) -> None:
    bomb = PACKERS[encoding](bytes(60 * MIB))
    tracemalloc.start()

    with pytest.raises(RequestTooLargeError):
        unpack(bomb, encoding, MIB)

    assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@pytest.mark.parametrize("spoil", [lambda b: b[:-5], lambda b: b"x" + b, lambda b: b[: len(b) // 2] + b"\xff" * 20])
def test_a_broken_body_is_malformed(encoding: str, spoil: object) -> None:
    packed = PACKERS[encoding](bytes(range(256)) * 40)

    with pytest.raises(MalformedRequestError):
        unpack(spoil(packed), encoding, MIB)  # type: ignore[operator]


def test_an_unknown_encoding_is_named() -> None:
    with pytest.raises(MalformedRequestError, match="'br' is none of gzip, zstd, deflate, identity"):
        unpack(b"x", "br", MIB)


@pytest.mark.parametrize(
    ("content_type", "form"),
    [
        ("application/x-protobuf", Form.PROTOBUF),
        ("application/json", Form.JSON),
        ("Application/JSON; charset=utf-8", Form.JSON),
        ("text/plain", None),
        ("", None),
        ("application/grpc", None),
    ],
)
def test_the_form_is_read_from_the_content_type(content_type: str, form: Form | None) -> None:
    assert form_of(content_type) is form
