"""Tars whose headers claim what cannot be: one rejected row, in little memory."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from tests.support.make_inputs import pairs, tar_of
from tests.support.read_inputs import errors, read


def header(name: str, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def checked(block: bytearray) -> bytes:
    """A header block with its checksum."""
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def sparse(*numbers: int, size: int = 100) -> bytes:
    """A header of an old GNU sparse member with the offsets and sizes `numbers`."""
    block = bytearray(header("s.jpg", tarfile.REGTYPE, 512))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[257:265] = b"ustar  \0"
    block[345:500] = bytes(155)
    for place, number in enumerate(numbers):
        block[386 + 12 * place : 398 + 12 * place] = b"%011o\0" % number
    block[483:495] = b"%011o\0" % size
    return checked(block) + bytes(512)


def with_size(field: bytes) -> bytes:
    block = bytearray(header("x.jpg", tarfile.REGTYPE, 0))
    block[124:136] = field
    return checked(block)


def pax(records: bytes) -> bytes:
    return header("p", tarfile.XHDTYPE, len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


HOSTILE = {
    "a long name": header("n", tarfile.GNUTYPE_LONGNAME, 256 << 20) + bytes(256 << 20),
    "an extended header": header("p", tarfile.XHDTYPE, 256 << 20) + bytes(256 << 20),
    "chained headers": header("n", tarfile.GNUTYPE_LONGNAME, 0) * 3000,
    "no size": with_size(b"\xff" * 12),
    "all bytes": with_size(b"\xff" * 11 + b"\xfe"),
    "a giant": with_size(b"\x80" + b"\x7f" * 11),
    "petabytes": with_size(b"\x80\0\0\0\0\x20" + bytes(6)),
    "a bad number": pax(b"21 GNU.sparse.size=x\n") + header("x.jpg", tarfile.REGTYPE, 0),
    "a bad map": pax(b"24 GNU.sparse.map=0,one\n") + header("x.jpg", tarfile.REGTYPE, 0),
    "holes outside": sparse(50, 100),
    "holes that overlap": sparse(0, 40, 20, 40),
    "more than there is": sparse(0, 2000, size=4000),
}


@pytest.mark.parametrize("packed", [False, True], ids=["tar", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_one_rejected_row(tmp_path: Path, name: str, packed: bool) -> None:
    data = tar_of(pairs(3))[: 3 * 2560] + HOSTILE[name] + tar_of([])
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    del data
    tracemalloc.start()
    rows = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert errors(rows) == [None, None, None, "broken_archive"]
    assert len(rows[-1]["error_message"]) < 250
    assert peak < 32 << 20


def test_global_headers_do_not_add_up(tmp_path: Path) -> None:
    out = io.BytesIO()
    for number in range(40):
        record = b"100013 k%06d=%s\n" % (number, b"v" * 99997)
        assert len(record) == 100013
        out.write(header("g", tarfile.XGLTYPE, len(record)) + record.ljust(100352, b"\0"))
        out.write(tar_of([(f"{number}.jpg", b"x")])[:1024])
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    rows = read(tmp_path / "a.tar")
    assert errors(rows) == [None] * 10 + ["broken_archive"]
    assert "global headers" in rows[-1]["error_message"]
