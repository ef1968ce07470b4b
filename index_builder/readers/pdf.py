"""Reads PDF: the text of a file, with pages separated like paragraphs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from pypdf import PasswordType, PdfReader
from pypdf.errors import DependencyError

from index_builder.documents.bad_rows import reason_of
from index_builder.readers.protocol import ParsedDocument, UnreadableFile

MAX_BYTES = 512 << 20
MAX_PAGES = 20_000
MAX_CHARACTERS = 64 << 20
_MAX_REASON = 120  # Characters of the library's error.

# The library warns about every irregularity that it tolerates, and raises errors for all others.
logging.getLogger("pypdf").setLevel(logging.ERROR)


def parse_pdf(path: Path) -> ParsedDocument:
    """Reads a PDF file.

    The title is that of the file's properties, otherwise empty. The text is that of the pages in
    the order in which it is drawn, with an empty line between pages.
    Raises: UnreadableFile: the file is encrypted, broken, too large, or contains only images.
        OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UnreadableFile(f"the file has {size} bytes; {MAX_BYTES} are allowed: split it")
    # The library bounds the size of a decompressed stream (75 MB). On broken or malicious files it
    # raises almost any exception, including RecursionError for deep nesting.
    try:
        with path.open("rb") as stream:
            reader = PdfReader(stream)
            if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
                raise UnreadableFile("encrypted with a password; remove it first")
            count = len(reader.pages)
            if count > MAX_PAGES:
                raise UnreadableFile(
                    f"the file has {count} pages; {MAX_PAGES} are allowed: split it"
                )
            title = (reader.metadata.title if reader.metadata else None) or ""
            text = "\n\n".join(page for page in _texts(reader) if page)
    except (UnreadableFile, MemoryError, OSError):
        raise
    except DependencyError as error:
        raise UnreadableFile("encrypted; remove the encryption first") from error
    except Exception as error:
        reason = reason_of(error, _MAX_REASON)
        raise UnreadableFile(
            f"broken PDF ({type(error).__name__}: {reason}); export it again"
        ) from error
    if not text:
        raise UnreadableFile(
            f"no text in {count} pages; if they are scanned images, run text recognition (OCR) "
            "first"
        )
    return ParsedDocument(" ".join(title.split()), text, count)


def _texts(reader: PdfReader) -> Iterator[str]:
    total = 0
    for page in reader.pages:
        text = page.extract_text()
        total += len(text)
        if total > MAX_CHARACTERS:
            raise UnreadableFile(f"more than {MAX_CHARACTERS} characters of text; split it")
        yield text.strip()
