"""A process that parses files: `python -m index_builder.readers.sandbox_main MEMORY_BYTES`.

Reads one JSON text a line, a path, and answers with one JSON object a line. It imports no numpy:
what that reserves would count against its memory.
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


def answer(path: Path) -> dict[str, object]:
    """Returns the document of a file as JSON, or why there is none."""
    try:
        reading = _parse(path)
        return {
            "title": _clean(reading.title),
            "text": _clean(reading.text),
            "pages": reading.pages,
        }
    except UnreadableFile as error:
        return {"reason": str(error)}
    except MemoryError:
        return {"reason": "it needs more memory than a parser is given; cut it in parts"}
    except OSError as error:
        return {"reason": f"cannot be read: {error.strerror or error}"}


def _parse(path: Path) -> ParsedDocument:
    return parse_pdf(path) if path.suffix.lower() == _PDF else parse_page(path)


def _clean(text: str) -> str:
    # Broken fonts and character references give half surrogate pairs, which no text may hold.
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")


def main(memory_bytes: int) -> None:
    """Answers until standard input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for line in sys.stdin:
        print(json.dumps(answer(Path(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
