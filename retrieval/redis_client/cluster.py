"""The client of a Redis Cluster: sends each command to the node that has its key.

It stands on the cluster client of redis-py: its connections, its map of slots, its commands. Its
pipelines differ from those of redis-py, which resend a redirected command on another connection: a
WAITAOF would then confirm a write that it does not cover. They also read the map of slots again
when a node fails, and never resend a command that may have run.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from redis.asyncio.cluster import ClusterNode, PipelineCommand, RedisCluster
from redis.commands import AsyncCoreCommands
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

CLUSTER_FAILURES = (RedisError, RedisClusterException, OSError, TimeoutError)
# Pause between two readings of the map of slots.
_LOCATE_EVERY_S = 0.5
# A moved slot redirects once; a map that is older, or a slot on its way, a few times.
_MAX_REDIRECTS = 5
_SCANNED = 1_000
# Replies of these count servers: the least of all nodes holds for a pipeline.
_WAITS = frozenset({"WAIT", "WAITAOF"})


class ClusterClient(RedisCluster):
    """A client of a Redis Cluster with the methods of a client of one server.

    The keys of a command, and those of a script, must share a slot. A command that fails because
    its node does is not resent.

    Args:
        nodes: Host and port of some nodes; they name the others.
        options: Other arguments of `RedisCluster`.
    """

    def __init__(self, nodes: Sequence[tuple[str, int]], options: Mapping[str, Any]) -> None:
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in nodes],
            # What the other nodes have can be read while one fails.
            require_full_coverage=False,
            **options,
        )
        self._located = False
        self._located_at = -_LOCATE_EVERY_S
        self._locating: asyncio.Task[None] | None = None

    async def initialize(
        self, additional_startup_nodes_info: Any = None, last_failed_node_name: str | None = None
    ) -> Self:
        """Reads the map of slots at the first call.

        Raises: RedisClusterException: no node answers, or they are no cluster.
        """
        if not self._located:
            await self.nodes_manager.initialize()
            self._located = True
        return self

    async def aclose(self) -> None:
        """Closes all connections."""
        if self._locating is not None:
            self._locating.cancel()
            await asyncio.wait([self._locating])
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")
        self._located = False

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        """Returns a pipeline; its commands are no transaction."""
        return ClusterPipeline(self)

    def node_pipeline(self, node: ClusterNode) -> Any:
        """Returns a pipeline whose commands all go to one node."""
        return ClusterPipeline(self, node)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Sends a command to the node of its key; one without a key as `RedisCluster` does."""
        if "target_nodes" in kwargs or args[0] in self.command_flags:
            return await super().execute_command(*args, **kwargs)
        pipe = ClusterPipeline(self)
        pipe.execute_command(*args, **kwargs)
        [reply] = await pipe.execute()
        return reply

    async def scan_iter(  # type: ignore[override]
        self, match: Any = None, count: Any = None
    ) -> AsyncIterator[Any]:
        """Yields the keys of all primaries that match a pattern."""
        await self.initialize()
        for node in self.get_primaries():
            cursor = 0
            while True:
                words = ("SCAN", cursor, "MATCH", match or "*", "COUNT", count or _SCANNED)
                cursor, keys = await node.execute_command(*words)
                for key in keys:
                    yield key
                if not cursor:
                    break

    def node_of(self, key: Any) -> ClusterNode:
        """Returns the primary that has a key. Raises: RedisClusterException: none has it."""
        return self.nodes_manager.get_node_from_slot(self.keyslot(key), False, None)

    def suspect(self, node: ClusterNode) -> None:
        """Reads the map of slots again, soon, because a node failed."""
        if self._locating is None or self._locating.done():
            self._locating = asyncio.create_task(self._locate(node.name))

    async def _locate(self, failed: str) -> None:
        await asyncio.sleep(self._located_at + _LOCATE_EVERY_S - time.monotonic())
        # Without an answer, the next failure tries again.
        with contextlib.suppress(*CLUSTER_FAILURES):
            await self.nodes_manager.initialize(last_failed_node_name=failed)
        self._located_at = time.monotonic()


class _Command:
    """A command of a pipeline. node: Where to send it; None until that is known."""

    __slots__ = ("asking", "key", "kwargs", "node", "reply", "words")

    def __init__(self, words: tuple[Any, ...], kwargs: dict[str, Any], key: Any) -> None:
        self.words = words
        self.kwargs = kwargs
        self.key = key
        self.node: ClusterNode | None = None
        self.asking = False
        self.reply: Any = None


class ClusterPipeline(AsyncCoreCommands):
    """Commands sent together; those of one node in order, on one connection.

    WAIT and WAITAOF are sent to every node that other commands go to, after those; the reply has
    the fewest servers that any of the nodes counted. A script that occurs several times is sent in
    full to each node once.

    Args:
        client: The cluster.
        node: Optional; where all commands go.
    """

    # The commands of redis-py declare it.
    _event_dispatcher: Any = None

    def __init__(self, client: ClusterClient, node: ClusterNode | None = None) -> None:
        self._client = client
        self._node = node
        self._commands: list[_Command] = []
        self._scripts: dict[str, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._commands = []

    def execute_command(self, *args: Any, **kwargs: Any) -> Self:
        """Adds a command."""
        name = args[0].upper()
        if name == "EVAL":
            self._scripts[_digest(args[1])] = args[1]
        key = None if self._node is not None or name in _WAITS else _key_of(name, args)
        command = _Command(args, kwargs, key)
        command.node = self._node
        self._commands.append(command)
        return self

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Sends the commands; returns the replies in order.

        Args:
            raise_on_error: Whether to raise the first error instead of returning it as a reply.
        Raises: RedisError, OSError: see raise_on_error. RedisClusterException: no node answers.
        """
        commands, self._commands = self._commands, []
        if not commands:
            return []
        await self._client.initialize()
        pinned = self._node is not None
        waits = [] if pinned else [one for one in commands if one.words[0].upper() in _WAITS]
        left = [one for one in commands if one not in waits]
        for _ in range(_MAX_REDIRECTS):
            batches: dict[str, list[_Command]] = {}
            nodes: dict[str, ClusterNode] = {}
            for one in left:
                try:
                    node = one.node or self._client.node_of(one.key)
                except RedisClusterException as error:
                    one.reply = error
                    continue
                nodes[node.name] = node
                batches.setdefault(node.name, []).append(one)
            await _together(
                [self._exchange(nodes[name], batch, waits) for name, batch in batches.items()]
            )
            left = [one for one in left if self._not_run(one)]
            if not left:
                break
            for one in left:
                await self._redirect(one)
        for one in commands:
            if raise_on_error and isinstance(one.reply, Exception):
                raise one.reply
        return [one.reply for one in commands]

    async def _exchange(
        self, node: ClusterNode, batch: Sequence[_Command], waits: Sequence[_Command]
    ) -> None:
        """Sends commands to a node, and takes its replies."""
        packed: list[Any] = []
        sent: list[Any] = []
        known: set[str] = set()
        for one in batch:
            if one.asking:
                packed.append(PipelineCommand(0, "ASKING"))
            sent.append(PipelineCommand(0, *self._words(one, known), **one.kwargs))
            packed.append(sent[-1])
        last = [PipelineCommand(0, *one.words, **one.kwargs) for one in waits]
        packed += last
        try:
            await node.execute_pipeline(packed)
        except CLUSTER_FAILURES as error:
            for one in packed:
                one.result = error
        except asyncio.CancelledError:
            # Its caller waited in vain.
            self._client.suspect(node)
            raise
        redirected = True
        for one, command in zip(batch, sent, strict=True):
            one.reply = command.result
            redirected = redirected and self._not_run(one)
        failed = [one for one in (*sent, *last) if _is_outage(one.result)]
        if failed:
            self._client.suspect(node)
        if not redirected:
            for one, command in zip(waits, last, strict=True):
                one.reply = _least(one.reply, command.result)

    def _not_run(self, command: _Command) -> bool:
        """Returns whether a node refused a command that another node, or it, will take."""
        if isinstance(command.reply, NoScriptError):
            # The script was in a command that was redirected.
            return command.words[1] in self._scripts
        return isinstance(command.reply, AskError)

    def _words(self, command: _Command, known: set[str]) -> Sequence[Any]:
        """Returns a command with its script in full if the node may not know it."""
        name, script, *rest = command.words if len(command.words) > 1 else (*command.words, "")
        if name not in ("EVAL", "EVALSHA"):
            return command.words
        digest = script if name == "EVALSHA" else _digest(script)
        if digest in known:
            return ("EVALSHA", digest, *rest)
        if digest not in self._scripts:
            return command.words
        known.add(digest)
        return ("EVAL", self._scripts[digest], *rest)

    async def _redirect(self, command: _Command) -> None:
        """Has a command that its node did not run sent to the node that it named."""
        error = command.reply
        if isinstance(error, NoScriptError):
            return
        command.asking = not isinstance(error, MovedError)
        if command.asking:
            manager = self._client.nodes_manager
            command.node = manager.get_node(host=error.host, port=error.port)
        else:
            command.node = None
            await self._client.nodes_manager.move_slot(error)


def cluster_of(client: object) -> ClusterClient | None:
    """Returns a client as the client of a cluster; None if it is one of a single server."""
    return client if isinstance(client, ClusterClient) else None


async def _together(work: Sequence[Any]) -> None:
    if len(work) == 1:
        await work[0]
    else:
        await asyncio.gather(*work)


def _key_of(name: str, words: Sequence[Any]) -> Any:
    """Returns the first key of a command; the others must be in the same slot."""
    if name in ("EVAL", "EVALSHA"):
        return words[3]
    if name == "XREAD":
        return words[[one in (b"STREAMS", "STREAMS") for one in words].index(True) + 1]
    return words[2] if name == "XINFO" else words[1]


def _digest(script: Any) -> str:
    return hashlib.sha1(script if isinstance(script, bytes) else script.encode()).hexdigest()


def _is_outage(reply: Any) -> bool:
    """Returns whether a reply says that the map of slots may be wrong."""
    if isinstance(reply, ClusterDownError):
        return True
    if not isinstance(reply, Exception) or isinstance(reply, AskError):
        return isinstance(reply, MovedError)
    return not isinstance(reply, ResponseError)


def _least(first: Any, second: Any) -> Any:
    """Returns the lower of two replies of WAIT or WAITAOF; an error is lowest."""
    if first is None or isinstance(second, Exception):
        return second
    if isinstance(first, Exception):
        return first
    if isinstance(first, list):
        return [min(pair) for pair in zip(first, second, strict=True)]
    return min(first, second)
