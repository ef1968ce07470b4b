"""The texts of items as vectors, in the order of a data set of interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from index_builder.documents.bad_rows import BadRows
from index_builder.execution.embedding import BATCH_TEXTS
from index_builder.readers.corpus import Corpus
from nearline.contract import Embedder, EmbedderInfo, Lane, TextRole
from nearline.errors import InvalidRequest
from nearline.items.documents import text_to_embed
from nearline.retry import retry_while_unavailable

_ANY_NUMBER = 1 << 62
# At about four characters per token, a model reads a few hundred tokens; a batch of such texts is a
# small load for the service.
_MAX_CHARACTERS = 2_000
_TIMEOUT_S = 120.0


def read_texts(corpus: Corpus, ids: Sequence[str]) -> dict[str, str]:
    """Returns the title and text of items in a corpus, by id, joined as a build embeds them.

    Unreadable rows and items without text are skipped.

    Raises: InvalidRequest: the corpus has no text for any of the items.
    """
    wanted = set(ids)
    texts = {}
    for _, item in corpus.rows(BadRows(_ANY_NUMBER)):
        text = text_to_embed(item.title, item.text).strip()
        if item.id in wanted and text:
            texts[item.id] = text[:_MAX_CHARACTERS]
    if not texts:
        raise InvalidRequest(
            f"the corpus has no text for any of the {len(wanted)} items of the interactions, such "
            f"as {ids[0]!r}; check --id-column, --title-column, --text-column and --item-column",
            field="corpus",
        )
    return texts


async def embed_texts(
    ids: Sequence[str], texts: Mapping[str, str], embedder: Embedder, info: EmbedderInfo
) -> NDArray[np.float32]:
    """Embeds the beginning of each item's text: (items, d) float32.

    Args:
        ids: In the order of the rows.
        texts: By id; items without one have a row of zeros.
        info: Description of the embedder.
    Raises: NotReady: the embedder was unavailable for a minute. Any other error of the embedder.
    """
    content = np.zeros((len(ids), info.dim), np.float32)
    rows = [row for row, one in enumerate(ids) if one in texts]
    size = min(BATCH_TEXTS, info.max_texts)
    for start in range(0, len(rows), size):
        batch_rows = rows[start : start + size]
        batch = [texts[ids[row]][: info.max_characters] for row in batch_rows]
        reply = await retry_while_unavailable(
            lambda batch=batch: embedder.embed(  # type: ignore[misc]
                batch,
                TextRole.DOCUMENT,
                expected_fingerprint=info.fingerprint,
                lane=Lane.BULK,
                timeout_s=_TIMEOUT_S,
            )
        )
        content[batch_rows] = reply.vectors
    return content
