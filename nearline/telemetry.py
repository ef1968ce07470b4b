"""Logs as JSON lines on standard error, for machines first."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from nearline.tracing.spans import current_span, trace_id_of

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes one JSON object per record: time, level, service, event, extra fields, trace_id."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line. An exception becomes the field `exception`.

        A line of a call that is recorded has its trace_id.
        """
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if (span := current_span()) is not None:
            line["trace_id"] = trace_id_of(span)
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str, service: str) -> None:
    """Sends every log of this process to standard error as JSON lines.

    Args:
        level: "debug", "info", "warning" or "error".
        service: Name that each line carries.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # A supervisor reads "serving" and the address from the log, at any level.
    logging.getLogger("nearline.serving").setLevel(min(logging.INFO, logging.root.level))
