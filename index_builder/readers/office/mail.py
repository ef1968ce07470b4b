"""Mail: what was written, by whom and when, and the names of what was attached."""

from __future__ import annotations

import re
from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from html import escape

from index_builder.readers.plain_text import plain_text_to_html
from index_builder.readers.protocol import UnreadableFile

_SHOWN = ("From", "To", "Cc", "Date")
_QUOTED = re.compile(r"^(?:>[ \t]?)++", re.MULTILINE)


def mail_markup(data: bytes) -> tuple[str, str]:
    """Returns the subject of a mail, and its text as HTML.

    Raises: UnreadableFile: it has no headers of a mail.
    """
    message = BytesParser(policy=policy.default).parsebytes(data)
    headers = [(name, _header(message, name)) for name in _SHOWN]
    if not any(text for _, text in headers) and not message["Subject"]:
        raise UnreadableFile("no mail: it has no headers; save it from the mail program again")
    shown = "".join(f"<li>{name}: {escape(text)}</li>" for name, text in headers if text)
    part = message.get_body(("html", "plain"))
    body = _written(part) if part is not None else ""
    attached = [one.get_filename() or one.get_content_type() for one in message.iter_attachments()]
    names = "".join(f"<li>{escape(name)}</li>" for name in attached)
    listed = f"<p>Attachments:</p><ul>{names}</ul>" if names else ""
    return _header(message, "Subject"), f"<ul>{shown}</ul>{body}{listed}"


def _header(message: EmailMessage, name: str) -> str:
    return " ".join(str(message.get(name, "")).split())


def _written(part: MIMEPart) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    try:
        text = data.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        text = data.decode("utf-8", "replace")
    if part.get_content_subtype() == "html":
        return text
    return plain_text_to_html(_QUOTED.sub("", "\n".join(text.splitlines())))
