"""Zip archives of office formats, unpacked in memory and within bounds."""

from __future__ import annotations

import posixpath
import zipfile
from pathlib import Path
from xml.etree.ElementTree import Element

from defusedxml.ElementTree import fromstring

from index_builder.readers.protocol import UnreadableFile

MAX_MEMBERS = 50_000
MAX_UNPACKED = 512 << 20
MAX_PART = 64 << 20  # Of a part that is parsed; objects take many times as much.
_CHUNK = 1 << 20
_PARSED = (".xml", ".rels", ".opf", ".xhtml", ".html", ".htm", ".ncx")
_OLE = b"\xd0\xcf\x11\xe0"
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")
_DECLARATIONS = (b"<!DOCTYPE", b"<!ENTITY")


class Archive:
    """An office document. Names of members are looked up, never opened on disk.

    Args:
        path: The file.
        declarations: Whether its XML may declare document types; XHTML does.
    Raises: UnreadableFile: the file is no archive, is encrypted, unpacks to too much, or declares
        entities. OSError.
    """

    def __init__(self, path: Path, declarations: bool = False) -> None:
        if not zipfile.is_zipfile(path):
            raise UnreadableFile(_no_archive(path))
        self._zip = zipfile.ZipFile(path)
        self._check(declarations)

    def read(self, name: str) -> bytes:
        """Returns a member; empty if there is none."""
        return self._zip.read(name) if name in self._zip.NameToInfo else b""

    def xml(self, name: str) -> Element | None:
        """Returns the root of a member; None if there is none."""
        data = self.read(name)
        return fromstring(data) if data else None

    def related(self, name: str) -> dict[str, tuple[str, str]]:
        """Returns the parts that a part refers to: kind and name, by id. External ones are not."""
        folder, base = posixpath.split(name)
        root = self.xml(f"{folder}/_rels/{base}.rels")
        return {
            one.get("Id", ""): (
                one.get("Type", "").rpartition("/")[2],
                posixpath.normpath(posixpath.join(folder, one.get("Target", ""))).lstrip("/"),
            )
            for one in (root if root is not None else ())
            if one.get("TargetMode") != "External"
        }

    def _check(self, declarations: bool) -> None:
        """Unpacks all members once, since what headers say may be wrong, and keeps none."""
        members = self._zip.infolist()
        if len(members) > MAX_MEMBERS:
            raise UnreadableFile(f"more than {MAX_MEMBERS} files in the archive; save it again")
        total = 0
        for member in members:
            if member.flag_bits & 1:
                raise UnreadableFile("encrypted with a password; remove it first")
            size, rest = 0, b""
            parsed = member.filename.lower().endswith(_PARSED)
            with self._zip.open(member) as stream:
                while chunk := stream.read(_CHUNK):
                    size, total = size + len(chunk), total + len(chunk)
                    if total > MAX_UNPACKED or (parsed and size > MAX_PART):
                        bound = MAX_UNPACKED if total > MAX_UNPACKED else MAX_PART
                        raise UnreadableFile(f"it unpacks to more than {bound} bytes; split it")
                    # Any encoding of these signs has the same bytes, but for zeros.
                    text = rest + chunk.replace(b"\0", b"") if parsed and not declarations else b""
                    if any(sign in text for sign in _DECLARATIONS):
                        raise UnreadableFile(
                            f"{member.filename} declares a document type or entities, which "
                            "office programs never write; save it again"
                        )
                    rest = text[-16:]


def _no_archive(path: Path) -> str:
    with path.open("rb") as stream:
        if stream.read(len(_OLE)) == _OLE:
            if _ENCRYPTED in stream.read(MAX_PART):
                return "encrypted with a password; remove it first"
            return "a format of Office before 2007; save it in the format that its name says"
    return f"no {path.suffix.lower()} file, or cut off; save or download it again"
