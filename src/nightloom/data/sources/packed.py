"""What a file holds, by its first bytes, and its content without compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import mmap
import zipfile
import zlib
from pathlib import Path

import pyarrow as pa

from nightloom.core.errors import InputError

Content = bytes | mmap.mmap
"""A file's bytes; both kinds can be searched and sliced, and a mapped file takes no memory of its own."""

PACKERS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zst", b"\xfd7zXZ\x00": "xz"}
ZIP = b"PK\x03\x04"
TABLES = {b"PAR1": "parquet", b"ARROW1": "arrow"}
NO_TABLES = {
    b"SQLite format 3\x00": "an SQLite database: write sqlite:///{path}?table=NAME",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook (.xls): save it as .xlsx or CSV",
    b"Obj\x01": "an Avro file: write it as Parquet",
    b"ORC": "an ORC file: write it as Parquet",
    b"\x89HDF": "an HDF5 file: write its table as Parquet",
    b"7z\xbc\xaf": "a 7z archive: unpack it, or pack it as zip",
    b"Rar!": "a RAR archive: unpack it, or pack it as zip",
    b"%PDF": "a PDF: save its table as CSV",
    b"\x80\x02": "a pickle, which is not opened since it can run code: write it as Parquet",
    b"\x80\x03": "a pickle, which is not opened since it can run code: write it as Parquet",
    b"\x80\x04": "a pickle, which is not opened since it can run code: write it as Parquet",
    b"\x80\x05": "a pickle, which is not opened since it can run code: write it as Parquet",
    b"<!doctype html": "a web page, perhaps of a login: download the table itself",
    b"<html": "a web page, perhaps of a login: download the table itself",
    b"<?xml": "XML: save it as CSV or Parquet",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
}
"""First bytes of what is no table that is read here, and what to do."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")
BOM = b"\xef\xbb\xbf"


def content_of(path: Path, name: str, member: str = "") -> Content:
    """The bytes of a file, or of a zip archive's member, unpacked.

    Args:
        path: the file.
        name: which table this is, for messages.
        member: name within a zip archive.

    Raises:
        InputError: it cannot be read, is damaged or cut short.
    """
    try:
        if member:
            with zipfile.ZipFile(path) as archive:
                return _unpacked(archive.read(member))
        with path.open("rb") as file:
            if not path.stat().st_size:
                return b""
            head = file.read(8)
            if (ending := path.suffix.lower().removeprefix(".")) in (*PACKERS.values(), "zip") and not head.startswith(_mark(ending)):
                raise ValueError(f"it is no {ending} file")
            if any(head.startswith(mark) for mark in PACKERS):
                return _unpacked(head + file.read())
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException, RuntimeError, ValueError) as error:
        raise InputError(
            f"{name}: {shown(path, member)} cannot be read ({error}). Check its permissions, and whether it was cut short or damaged."
        ) from error


def shown(path: Path, member: str = "") -> str:
    """A part's name in messages."""
    return f"{path}/{member}" if member else str(path)


def form_of(content: Content, path: Path, name: str, member: str = "") -> str:
    """What bytes hold: parquet, arrow, xlsx, zip, json or text.

    Raises:
        InputError: it is something else, which is named.
    """
    head = content[:512]
    start = head.lstrip(b" \t\r\n").lower()
    for mark, what in NO_TABLES.items():
        if head.startswith(mark) or start.startswith(mark.lower()):
            raise InputError(f"{name}: {shown(path, member)} is {what.format(path=path)}.")
    if head[257:262] == b"ustar":
        raise InputError(f"{name}: {shown(path, member)} is a tar archive: unpack it into a folder and name that.")
    for mark, form in TABLES.items():
        if head.startswith(mark):
            return form
    if head.startswith(ZIP):
        return "xlsx" if "xl/workbook.xml" in _members(content) else "zip"
    if head.startswith(UTF16):
        return "text"
    first = head.removeprefix(BOM).lstrip()[:1]
    second = head.removeprefix(BOM).lstrip()[1:].lstrip()[:1]
    if (first == b"{" and second in (b'"', b"}")) or (first == b"[" and second in (b"{", b"]")):
        return "json"
    suffixes = [suffix for suffix in Path(member or path.name).suffixes if suffix.lower() not in (".gz", ".bz2", ".zst", ".xz", ".zip")]
    return "json" if suffixes and suffixes[-1].lower() in (".json", ".jsonl", ".ndjson") and first else "text"


def members_of(path: Path, name: str) -> list[str]:
    """Files within a zip archive, by name; folders and the rubbish of macOS are none.

    Raises:
        InputError: the archive is damaged, needs a password, or is empty.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            named = [one for one in archive.infolist() if one.filename]  # a name that begins with NUL is none to zipfile
            infos = [one for one in named if not one.is_dir() and not one.filename.startswith("__MACOSX/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{name}: {path} cannot be read as a zip archive ({error}). Was it cut short? Pack it again.") from error
    if any(one.flag_bits & 1 for one in infos):
        raise InputError(f"{name}: {path} needs a password, which is never asked for. Unpack it.")
    if not infos:
        raise InputError(f"{name}: the zip archive {path} is empty.")
    return sorted(one.filename for one in infos)


def _members(content: Content) -> list[str]:
    try:
        with zipfile.ZipFile(io.BytesIO(content[:])) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []


def _mark(ending: str) -> bytes:
    return next((mark for mark, kind in PACKERS.items() if kind == ending), ZIP)


def _unpacked(content: bytes) -> bytes:
    """Without compression, however often it was packed."""
    kind = next((kind for mark, kind in PACKERS.items() if content.startswith(mark)), None)
    if kind == "gz":
        return _unpacked(gzip.decompress(content))
    if kind == "bz2":
        return _unpacked(bz2.decompress(content))
    if kind == "xz":
        return _unpacked(lzma.decompress(content))
    if kind == "zst":
        with pa.CompressedInputStream(pa.BufferReader(content), "zstd") as stream:
            return _unpacked(stream.read())
    return content
