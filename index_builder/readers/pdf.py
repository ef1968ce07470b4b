"""PDF: the text of a file, its pages parted as paragraphs are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError

from index_builder.readers.protocol import ParsedDocument, UnreadableFile

MAX_BYTES = 512 << 20
MAX_PAGES = 20_000
MAX_CHARACTERS = 64 << 20
_WARNED_ABOUT = 120  # Characters of what the library says.

# It warns of every oddity that it reads past; what it cannot read past is an error.
logging.getLogger("pypdf").setLevel(logging.ERROR)


def parse_pdf(path: Path) -> ParsedDocument:
    """Reads a PDF file.

    The title is that of the file's properties, else empty. The text is that of the pages, in the
    order in which they draw it, with an empty line between two pages.
    Raises: Unreadable: encrypted, broken, too large, or pictures of pages only. OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnreadableFile(f"the file has {size} bytes, {MAX_BYTES} are read; cut it in parts")
    # The library bounds what one stream unpacks to (75 MB), and raises nearly every class there is
    # where a file is broken or made to hurt: RecursionError where it nests too deep.
    try:
        with path.open("rb") as stream:
            reader = PdfReader(stream)
            if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
                raise UnreadableFile("encrypted with a password; remove it first")
            count = len(reader.pages)
            if count > MAX_PAGES:
                raise UnreadableFile(f"{count} pages, {MAX_PAGES} are read; cut the file in parts")
            title = (reader.metadata.title if reader.metadata else None) or ""
            text = "\n\n".join(page for page in _texts(reader) if page)
    except (UnreadableFile, MemoryError, OSError):
        raise
    except DependencyError as error:
        raise UnreadableFile("encrypted; remove the encryption first") from error
    except Exception as error:
        said = " ".join(str(error).split())[:_WARNED_ABOUT]
        raise UnreadableFile(
            f"broken PDF ({type(error).__name__}: {said}); write it again"
        ) from error
    if not text:
        raise UnreadableFile(
            f"no text in {count} pages, which may be pictures of pages; recognise their text first "
            "(OCR)"
        )
    return ParsedDocument(" ".join(title.split()), text, count)


def _texts(reader: PdfReader) -> Iterator[str]:
    total = 0
    for page in reader.pages:
        text = page.extract_text()
        total += len(text)
        if total > MAX_CHARACTERS:
            raise UnreadableFile(f"more than {MAX_CHARACTERS} characters of text; cut it in parts")
        yield text.strip()
