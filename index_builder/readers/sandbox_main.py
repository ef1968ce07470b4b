"""The parser process: `python -m index_builder.readers.sandbox_main MEMORY_BYTES`.

It reads one path per line, as a JSON string, and replies with one JSON object per line. It does not
import numpy, whose memory reservations would count against its limit.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from index_builder.readers.html import parse_page
from index_builder.readers.pdf import parse_pdf
from index_builder.readers.protocol import ParsedDocument, UnreadableFile

_PDF = ".pdf"


def parse(path: Path) -> dict[str, object]:
    """Returns the document of a file as JSON, or the reason why there is none."""
    try:
        document = _parse(path)
        return {
            "title": _clean(document.title),
            "text": _clean(document.text),
            "pages": document.pages,
        }
    except UnreadableFile as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"reason": "parsing exceeds the memory limit; split the file"}
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror or error}"}


def _parse(path: Path) -> ParsedDocument:
    return parse_pdf(path) if path.suffix.lower() == _PDF else parse_page(path)


def _clean(text: str) -> str:
    # Broken fonts and character references produce lone surrogates, which no text may contain.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def main(memory_bytes: int) -> None:
    """Replies until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for line in sys.stdin:
        print(json.dumps(parse(Path(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
