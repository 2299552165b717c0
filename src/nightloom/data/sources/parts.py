"""The files that make a table: one file, or all of a folder and its sub folders. None is passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from nightloom.core.errors import InputError
from nightloom.data.sources.packed import ZIP, members_of, shown

PACKED = (".gz", ".bz2", ".zst", ".xz", ".zip")
TEXT_ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".tab", ".psv")
JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
PARQUET_ENDINGS = (".parquet", ".pq")
OTHER_ENDINGS = (".feather", ".arrow", ".xlsx", ".xlsm")
ENDINGS = (*TEXT_ENDINGS, *JSON_ENDINGS, *PARQUET_ENDINGS, *OTHER_ENDINGS)
SPOKEN = ".csv, .tsv, .txt or .dat, .json or .jsonl (JSON lines), .parquet, .feather or .xlsx, perhaps with .gz, .bz2, .zst, .xz or .zip"

NO_PARTS = ("readme", "license", "licence", "copying", "notice", "changelog")
"""Names of files that lie beside the parts of a table and are none."""
PLAIN = ("", ".txt", ".md", ".rst", ".html", ".pdf")
"""Endings that such a file may have; readme.csv is a part."""
MARKERS = ("_success", "_metadata", "_common_metadata", "_committed_", "_started_", "thumbs.db", "desktop.ini")
"""Files that programs write beside parts, by how their name begins."""
LAKES = {"_delta_log": "a Delta Lake table", ".hoodie": "a Hudi table", "metadata": "an Iceberg table"}
"""Folders that mark tables whose files also hold deleted rows."""
UNFINISHED = "_temporary"
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""How Hive writes that a partition has no value."""


@dataclass(frozen=True)
class Part:
    """One file of a table.

    Attributes:
        path: the file.
        member: name within a zip archive, or empty.
        columns: columns that the names of its folders give, as in `month=2024-05`; None where the value is missing.
    """

    path: Path
    member: str = ""
    columns: tuple[tuple[str, str | None], ...] = ()

    def __str__(self) -> str:
        return shown(self.path, self.member)


def parts_of(path: Path, name: str) -> list[Part]:
    """The files of a table: the file itself, those of a zip archive, or all of a folder, by path.

    Raises:
        InputError: a file of the folder is no table, or two would count the same rows twice; each is named.
    """
    if not path.is_dir():
        return [Part(path, member) for member in _members(path, name)]
    found, strange = list[Part](), list[str]()
    for file in _files(path, name):
        if not _is_part(file):
            strange.append(file.relative_to(path).as_posix())
            continue
        columns = tuple(_partition(part) for part in file.relative_to(path).parent.parts if "=" in part)
        found += [Part(file, member, columns) for member in _members(file, name)]
    if strange:
        raise InputError(
            f"{name}: {len(strange):,} of {len(found) + len(strange):,} files in the folder {path} are not read, for example "
            f"{', '.join(strange[:3])}. Parts are {SPOKEN}. Convert them, or move away what is no part."
        )
    if not found:
        raise InputError(f"{name}: the folder {path} holds no table. Put files there: {SPOKEN}.")
    _not_twice(found, path, name)
    return found


def _files(path: Path, name: str) -> Iterator[Path]:
    """All files below a folder, less those that are known to be no data."""
    for entry in sorted(path.iterdir()):
        low = entry.name.lower()
        if entry.is_dir():
            if low in LAKES and (low != "metadata" or any(entry.glob("*.metadata.json"))):
                raise InputError(
                    f"{name}: {path} is {LAKES[low]}; its files also hold rows that were deleted. Write its newest state as Parquet."
                )
            if low == UNFINISHED:
                raise InputError(f"{name}: {entry} shows that the folder is still being written, or that the writer died. Write it again.")
            if not low.startswith((".", "__macosx")):
                yield from _files(entry, name)
        elif not (low.startswith((".", *MARKERS)) or (low.split(".")[0] in NO_PARTS and entry.suffix.lower() in PLAIN)):
            yield entry


def _is_part(file: Path) -> bool:
    bare = file.with_suffix("") if file.suffix.lower() in PACKED else file
    return bare.suffix.lower() in ENDINGS or file.suffix.lower() == ".zip" or (not file.suffix and _numbered(file.name))


def _numbered(name: str) -> bool:
    """Whether a name is one that Hadoop gives to parts, such as part-00000."""
    return name.startswith("part-")


def _partition(folder: str) -> tuple[str, str | None]:
    key, _, value = folder.partition("=")
    return unquote(key), None if value == NO_VALUE else unquote(value)


def _members(path: Path, name: str) -> list[str]:
    """The members of a zip archive that are tables; an empty name for any other file."""
    try:
        with path.open("rb") as file:
            packed = file.read(4) == ZIP
    except OSError as error:
        raise InputError(f"{name}: {path} cannot be read ({error}). Check the file and its permissions.") from error
    if not packed or path.suffix.lower() in (".xlsx", ".xlsm"):
        return [""]
    members = members_of(path, name)
    if "xl/workbook.xml" in members:
        return [""]
    tables = [one for one in members if not _rubbish(PurePosixPath(one))]
    strange = [one for one in tables if len(tables) > 1 and not _is_part(Path(one))]
    if strange or not tables:
        raise InputError(
            f"{name}: {len(strange or members):,} of {len(members):,} files in {path} are not read, "
            f"for example {', '.join((strange or members)[:3])}. "
            "Unpack it, and name the table itself, or a folder of its parts."
        )
    return tables


def _rubbish(member: PurePosixPath) -> bool:
    low = member.name.lower()
    return low.startswith((".", *MARKERS)) or (low.split(".")[0] in NO_PARTS and member.suffix.lower() in PLAIN)


def _not_twice(parts: list[Part], path: Path, name: str) -> None:
    """Two files of one name and other endings, or of two kinds, are most often the same rows."""
    kinds = {_kind(part): part for part in parts}
    if len(kinds) > 1:
        files = " and ".join(str(part.path.relative_to(path)) for part in list(kinds.values())[:2])
        raise InputError(
            f"{name}: the folder {path} holds both {' and '.join(sorted(kinds))} files ({files}). "
            "Keep one kind, so that no row is counted twice."
        )
    stems: dict[tuple[Path, str], Part] = {}
    for part in parts:
        file = Path(part.member or part.path.name)
        bare = file.with_suffix("") if file.suffix.lower() in PACKED else file
        key = (part.path.parent, bare.name)
        if key in stems and not (part.member and stems[key].member):
            raise InputError(
                f"{name}: {stems[key]} and {part} look like one file, packed and unpacked. Keep one, so that no row is counted twice."
            )
        stems[key] = part


def _kind(part: Part) -> str:
    endings = {suffix.lower() for suffix in Path(part.member or part.path.name).suffixes}
    if endings & set(PARQUET_ENDINGS):
        return "Parquet"
    if endings & set(JSON_ENDINGS):
        return "JSON"
    return "Excel" if endings & {".xlsx", ".xlsm"} else "Arrow" if endings & {".feather", ".arrow"} else "CSV"
