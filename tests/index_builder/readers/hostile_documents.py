"""Documents made to hurt, each with the reason for which it is refused, or its text."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.index_builder.readers.office_files import (
    DOCX_RELS,
    SHEET,
    TEXT,
    cells,
    docx,
    epub,
    odf,
    pptx,
    relations,
    text_cell,
    word,
    xlsx,
    zipped,
)

SECRET = "the-secret-of-this-machine"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 504


class Trap(NamedTuple):
    """Where hostile files point to. url: A server that nobody may ask. file: Holds SECRET."""

    url: str
    file: str


class Hostile(NamedTuple):
    """A hostile file. reason: A pattern that its reason matches; empty if its text is read."""

    reason: str
    make: Callable[[Trap], bytes]


def _repeated(members: Mapping[str, str | bytes], data: bytes, count: int, lie: int = 0) -> bytes:
    """Returns an archive with further members of the same data, which is compressed once.

    Args:
        lie: If not 0, the size that headers declare.
    """
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    packed, crc = packer.compress(data) + packer.flush(), zlib.crc32(data)
    whole = bytearray(zipped(members))
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    directory, written = whole[start:end], whole[:start]
    for number in range(count):
        name = f"word/media/{number}.bin".encode()
        sizes = struct.pack("<IIIHH", crc, len(packed), lie or len(data), len(name), 0)
        at = len(written)
        written += b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0" + sizes + name + packed
        directory += b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0" + sizes
        directory += struct.pack("<HHHII", 0, 0, 0, 0, at) + name
    total = len(members) + count
    tail = struct.pack("<HHHHIIH", 0, 0, total, total, len(directory), len(written), 0)
    return bytes(written + directory + b"PK\x05\x06" + tail)


def _entities(count: int, system: str = "") -> str:
    if system:
        return f'<!DOCTYPE w [<!ENTITY e SYSTEM "{system}">]>'
    nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, count))
    return f'<!DOCTYPE w [<!ENTITY e0 "lol">{nested}]>'


def _linked(kind: str, target: str, body: str = "", external: bool = True) -> bytes:
    members = docx(word(body))
    members[DOCX_RELS] = relations({"r9": (kind, target)}, external)
    return zipped(members)


def _picture(attribute: str) -> str:
    return (
        '<w:p><w:r><w:drawing><wp:inline xmlns:wp="http://schemas.openxmlformats.org/drawingml/'
        '2006/wordprocessingDrawing"><a:graphic><a:graphicData><pic:pic xmlns:pic="http://schemas.'
        'openxmlformats.org/drawingml/2006/picture"><pic:blipFill><a:blip '
        f'{attribute}="r9"/></pic:blipFill></pic:pic></a:graphicData></a:graphic></wp:inline>'
        "</w:drawing></w:r></w:p>"
    )


_DTD = "declares a document type"
_ZEROS = b"0" * (60 << 20)

HOSTILE_OFFICE: dict[str, Hostile] = {
    # Entities, in every format that has XML.
    "laughs.docx": Hostile(_DTD, lambda _: zipped(docx(word("&e9;", _entities(10))))),
    "quadratic.docx": Hostile(
        _DTD,
        lambda _: zipped(
            docx(word("&e;" * 50_000, f'<!DOCTYPE w [<!ENTITY e "{"x" * 50_000}">]>'))
        ),
    ),
    "xxe-file.docx": Hostile(
        _DTD, lambda trap: zipped(docx(word("&e;", _entities(0, f"file://{trap.file}"))))
    ),
    "xxe-url.docx": Hostile(
        _DTD, lambda trap: zipped(docx(word("&e;", _entities(0, f"{trap.url}/docx"))))
    ),
    "xxe-utf16.docx": Hostile(
        _DTD,
        lambda trap: zipped(docx(word("&e;", _entities(0, f"{trap.url}/16")).encode("utf-16"))),
    ),
    "xxe-properties.docx": Hostile(
        _DTD,
        lambda trap: zipped(
            {**docx(word()), "docProps/core.xml": _entities(0, trap.url) + "<a>&e;</a>"}
        ),
    ),
    "xxe.xlsx": Hostile(
        _DTD,
        lambda trap: xlsx(cells(text_cell("A1")), f"{_entities(0, trap.url)}<sst>&e;</sst>"),
    ),
    "xxe.pptx": Hostile(_DTD, lambda trap: pptx(head=_entities(0, f"{trap.url}/pptx"))),
    "laughs.odt": Hostile(_DTD, lambda _: odf("&e9;", _entities(10))),
    "xxe.odt": Hostile(_DTD, lambda trap: odf("&e;", _entities(0, f"file://{trap.file}"))),
    "xxe.epub": Hostile(
        "Entities", lambda trap: epub("&e;", "", _entities(0, f"file://{trap.file}"))
    ),
    # Archives that unpack to much, or lie.
    "bomb-part.docx": Hostile("unpacks to more than", lambda _: zipped(docx(b" " * (70 << 20)))),
    "bomb-total.docx": Hostile(
        "unpacks to more than", lambda _: _repeated(docx(word()), _ZEROS, 10)
    ),
    "bomb-lying.docx": Hostile("damaged docx", lambda _: _repeated(docx(word()), _ZEROS, 2, 10)),
    "bomb-nested.docx": Hostile(
        "",
        lambda _: zipped({**docx(word()), "word/media/a.zip": _repeated({"a": "a"}, _ZEROS, 100)}),
    ),
    "bomb-members.docx": Hostile(
        "50000 files in the archive", lambda _: _repeated(docx(word()), b"x", 60_000)
    ),
    "bomb.epub": Hostile(
        "unpacks to more than",
        lambda _: epub('<itemref idref="a"/>', "", **{"b.xhtml": " " * (70 << 20)}),
    ),
    "traversal.docx": Hostile(
        "",
        lambda trap: zipped({**docx(word()), "../../evil.txt": "x", f"{trap.file}.evil": "x"}),
    ),
    "symlink.docx": Hostile("", lambda trap: zipped(docx(word()), {"word/media/a.png": trap.file})),
    "symlink-styles.docx": Hostile(
        "damaged docx",
        lambda trap: zipped(
            {**docx(word()), DOCX_RELS: relations({"r1": ("styles", "styles.xml")})},
            {"word/styles.xml": trap.file},
        ),
    ),
    "traversal.epub": Hostile(
        "no text in it",
        lambda trap: epub(
            '<itemref idref="a"/>', f'<item id="a" href="../../../../..{trap.file}"/>'
        ),
    ),
    # Parts that refer to others.
    "remote-picture.docx": Hostile(
        "", lambda trap: _linked("image", f"{trap.url}/a.png", _picture("r:link"))
    ),
    "remote-embedded.docx": Hostile(
        "", lambda trap: _linked("image", f"{trap.url}/b.png", _picture("r:embed"))
    ),
    "local-picture.docx": Hostile(
        "", lambda trap: _linked("image", f"file://{trap.file}", _picture("r:link"))
    ),
    "remote-template.docx": Hostile(
        "", lambda trap: _linked("attachedTemplate", f"{trap.url}/t.dotm")
    ),
    "self-chunk.docx": Hostile(
        "", lambda _: _linked("aFChunk", "document.xml", '<w:altChunk r:id="r9"/>', external=False)
    ),
    "self-notes.docx": Hostile("", lambda _: _linked("footnotes", "document.xml", external=False)),
    "self-styles.docx": Hostile("", lambda _: _linked("styles", "document.xml", external=False)),
    "many-relations.docx": Hostile(
        "",
        lambda trap: zipped(
            {
                **docx(word()),
                DOCX_RELS: relations(
                    {f"r{n}": ("image", f"{trap.url}/{n}") for n in range(10_000)}, external=True
                ),
            }
        ),
    ),
    "self-notes.pptx": Hostile("", lambda _: pptx(notes="slide1.xml")),
    "same-slide.pptx": Hostile("", lambda _: pptx(slides=100_000)),
    "same-chapter.epub": Hostile(
        "", lambda _: epub('<itemref idref="a"/>' * 100_000, '<item id="a" href="a.xhtml"/>')
    ),
    "remote-formula.xlsx": Hostile(
        "",
        lambda trap: xlsx(
            cells(
                f'<c r="A1" t="str"><f>WEBSERVICE("{trap.url}")</f><v>{TEXT}</v></c>',
                f"<c r=\"B1\"><f>cmd|' /c touch {trap.file}.evil'!A1</f><v>5</v></c>",
            )
        ),
    ),
    # Programs and objects.
    "macro.docx": Hostile(
        "", lambda _: zipped({**docx(word()), "word/vbaProject.bin": OLE + b"AutoOpen" * 100})
    ),
    "object.docx": Hostile(
        "",
        lambda _: zipped(
            {
                **docx(word("<w:p><w:r><w:object><w:control r:id='r9'/></w:object></w:r></w:p>")),
                "word/embeddings/oleObject1.bin": OLE * 100,
            }
        ),
    ),
    "macro.odt": Hostile(
        "",
        lambda _: odf(
            f'<office:scripts><office:script>Shell("touch x")</office:script></office:scripts>'
            f"<office:text><text:p>{TEXT}</text:p></office:text>"
        ),
    ),
    # Nesting and numbers.
    "deep.docx": Hostile(
        "nested too deeply|damaged docx",
        lambda _: zipped(
            docx(word("<w:tbl><w:tr><w:tc>" * 20_000 + "</w:tc></w:tr></w:tbl>" * 20_000))
        ),
    ),
    "deep.odt": Hostile(
        "nested too deeply",
        lambda _: odf("<text:section>" * 50_000 + "</text:section>" * 50_000),
    ),
    "empty-paragraphs.docx": Hostile(
        "longer than|memory|no text|^$", lambda _: zipped(docx(word("<w:p/>" * 1_000_000)))
    ),
    "empty-paragraphs.odt": Hostile(
        "", lambda _: odf(f"<text:p>{TEXT}</text:p>" + "<text:p/>" * 100_000)
    ),
    "dimension.xlsx": Hostile(
        "", lambda _: xlsx(cells(text_cell("A1")), dimension="A1:XFD1048576")
    ),
    "last-row.xlsx": Hostile(
        "",
        lambda _: xlsx(cells(text_cell("A1")) + cells(text_cell("A1048576"), row=1_048_576)),
    ),
    "last-column.xlsx": Hostile(
        "2000000 cells",
        lambda _: xlsx("".join(cells(text_cell(f"XFD{n}"), row=n) for n in range(1, 300))),
    ),
    "shared-string.xlsx": Hostile(
        "67108864 characters",
        lambda _: xlsx(
            "".join(cells(text_cell(f"A{n}"), row=n) for n in range(1, 5_000)),
            f'<sst xmlns="{SHEET}"><si><t>{"word " * 6_000}</t></si></sst>',
        ),
    ),
    "merged.xlsx": Hostile(
        "",
        lambda _: xlsx(
            cells(text_cell("A1")),
            after="<mergeCells>" + '<mergeCell ref="A1:XFD1048576"/>' * 50_000 + "</mergeCells>",
        ),
    ),
    "no-such-string.xlsx": Hostile("damaged xlsx", lambda _: xlsx(cells(text_cell("A1", 10**9)))),
    "spaces.odt": Hostile(
        "",
        lambda _: odf(
            f'<office:text><text:p>{TEXT}<text:s text:c="999999999"/></text:p></office:text>'
        ),
    ),
    # Damaged, disguised or locked.
    "truncated.docx": Hostile("cut off", lambda _: zipped(docx(word()))[:-100]),
    "picture.docx": Hostile("no .docx file", lambda _: b"\x89PNG\r\n\x1a\n" + b"\0" * 1_000),
    "password.docx": Hostile(
        "encrypted with a password", lambda _: OLE + "EncryptedPackage".encode("utf-16-le")
    ),
    "old.xlsx": Hostile("before 2007", lambda _: OLE * 3),
    "password.odt": Hostile(
        "encrypted with a password", lambda _: odf("", manifest="<encryption-data/>")
    ),
    "password.epub": Hostile(
        "DRM",
        lambda _: epub(
            '<itemref idref="a"/>',
            '<item id="a" href="a.xhtml"/>',
            **{
                "META-INF__encryption.xml": "<encryption>"
                '<CipherReference URI="a.xhtml"/></encryption>'
            },
        ),
    ),
    "no-parts.docx": Hostile("damaged docx", lambda _: zipped({"a.txt": "a"})),
    "unclosed.docx": Hostile("damaged docx", lambda _: zipped(docx(word()[:-20]))),
    "nul.docx": Hostile("damaged docx", lambda _: zipped(docx(word("\0\0")))),
}
