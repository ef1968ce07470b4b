"""A client of several embedding services of one model, for commands that embed many documents."""

from __future__ import annotations

from collections.abc import Sequence

from nearline.clients import EmbeddingClient
from nearline.contract import EmbedderInfo, Embeddings, Lane, TextRole
from nearline.errors import InvalidRequest
from retrieval.embedders.endpoints import Embedders
from retrieval.embedders.group import EndpointGroup


class EmbeddingClients(EmbeddingClient):
    """A client of several embedding services of one model.

    They share the calls of `embed`; see `EndpointGroup`. All other calls go to the first.

    Args:
        addresses: "host:port" of each service; at least one.

    address: All addresses, separated by commas, as `--embedding` takes them.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(addresses[0])
        self.address = ",".join(addresses)
        self._clients = {one: EmbeddingClient(one) for one in addresses}
        self._embedders = Embedders(self._clients)
        self._group: EndpointGroup | None = None

    @property
    def size(self) -> int:
        """Number of services that have the model, at least 1, by their last answers."""
        return 1 if self._group is None else self._group.size

    async def embed(
        self,
        texts: Sequence[str],
        role: TextRole | str = TextRole.DOCUMENT,
        *,
        dimensions: int | None = None,
        expected_fingerprint: str = "",
        lane: Lane | str = Lane.INTERACTIVE,
        timeout_s: float | None = None,
    ) -> Embeddings:
        """Embeds a batch of texts; see `Embedder.embed`."""
        group = await self._same_model()
        return await group.embed(
            texts,
            TextRole(role),
            dimensions=dimensions,
            expected_fingerprint=expected_fingerprint,
            lane=Lane(lane),
            timeout_s=timeout_s,
        )

    async def info(self) -> EmbedderInfo:
        """Returns the card of the model, with limits that all services have.

        Raises: InvalidRequest: the services have different models. NotReady: none answers.
        """
        return await (await self._same_model()).info()

    async def close(self) -> None:
        """Closes the channels; calls in flight are cancelled."""
        for client in self._clients.values():
            await client.close()
        await super().close()

    async def _same_model(self) -> EndpointGroup:
        if self._group is None:
            cards = await self._embedders.infos()
            if not cards:
                # Its error says why.
                card = await super().info()
                cards = {card.fingerprint: card}
            if len(cards) > 1:
                models = ", ".join(f"{one.model} ({name})" for name, one in cards.items())
                raise InvalidRequest(
                    f"--embedding names services of different models: {models}; name services of "
                    "one model",
                    field="embedding",
                )
            self._group = self._embedders.group(next(iter(cards)))
        return self._group


def embedding_client(addresses: Sequence[str]) -> EmbeddingClient:
    """Returns a client of one or several embedding services of one model.

    addresses: "host:port" of each service; at least one.
    """
    return EmbeddingClient(addresses[0]) if len(addresses) == 1 else EmbeddingClients(addresses)
