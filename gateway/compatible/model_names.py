"""Names of models as clients of OpenAI send them: a collection, and who writes the answer.

nearline/default               the service chooses the writer
nearline/default:extractive    sentences of the documents alone
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from nearline.errors import NotFound

PREFIX: Final = "nearline/"
_NAME: Final = re.compile(r"nearline/([a-z0-9][a-z0-9_-]{0,62})(?::([\w.-]{1,64}))?")


class ChatModelName(NamedTuple):
    """A collection and a writer; an empty writer: the service chooses."""

    collection: str
    backend: str = ""


def parse_chat_model(name: str) -> ChatModelName:
    """Returns what the name of a model stands for.

    Raises: NotFound: it is none of Nearline's.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise NotFound(
            f"there is no model {name!r}; send nearline/COLLECTION or nearline/COLLECTION:WRITER, "
            "such as nearline/default:extractive (/v1/models lists them)",
            field="model",
        )
    return ChatModelName(found[1], found[2] or "")
