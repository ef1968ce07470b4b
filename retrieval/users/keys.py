"""The Redis keys of the state of users and sessions.

The keys of a user share a hash tag, so that they are in one slot of a Redis Cluster and one script
can access them together. Keys contain digests of ids, not the ids.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from typing import NamedTuple

from nearline.store.snapshot import partition_of

_DIGEST_BYTES = 12
# Of the digest of a user or a session, in counts and marks.
OWNER_BYTES = 8


class OwnerKeys(NamedTuple):
    """Keys of a user or a session, and of its partition.

    state: Hash: h, the packed history; for users also x, time of the last deletion, microseconds,
    a, the packed attributes, and l, the id of the last log entry.
    recent: String: digests of the events of the last 24 hours.
    log: Stream of the interactions of the partition. Entries of users have the id of the user's
    previous entry (back), empty for the first, as their last field.
    dictionary: String: id of the dictionary that encodes the histories of the partition.
    links: Hash: last, the last entry that was logged with such a link; unlinked, the last that may
    have none, as a version of Nearline before them logged it.
    """

    state: str
    recent: str
    log: str
    dictionary: str
    links: str


class DictionaryKeys(NamedTuple):
    """Keys of the dictionary of a collection; all expire.

    dictionary: String: its id. generation: Hash: created, when it was started; kept, how long a
    history is kept; in seconds; "of " and a tenant, names that it made up. numbers: Hash from "i"
    and item id, or "k" and kind, to a number. items, kinds: Lists of names by number.
    """

    dictionary: str
    generation: str
    numbers: str
    items: str
    kinds: str

    def retired(self, dictionary_id: bytes) -> tuple[str, str]:
        """Returns the keys of the lists, items first, of a dictionary that was replaced."""
        return f"{self.items}:{dictionary_id.hex()}", f"{self.kinds}:{dictionary_id.hex()}"


def user_keys(collection: str, user_id: str) -> OwnerKeys:
    """Returns the keys of a user."""
    return _owner_keys(collection, user_id, "u", b"user")


def session_keys(collection: str, session_id: str) -> OwnerKeys:
    """Returns the keys of a session."""
    return _owner_keys(collection, session_id, "s", b"session")


def owner_digest(user_id: str, session_id: str = "") -> bytes:
    """Returns 8 bytes that stand for a user, or for a session without a user."""
    owner, person = (user_id, b"visitor") if user_id else (session_id, b"visit")
    return hashlib.blake2b(owner.encode(), digest_size=OWNER_BYTES, person=person).digest()


def marks_key(collection: str, partition: int) -> str:
    """Returns the key of the marks of a partition.

    A stream: for each deletion of a user or a session, its digest (owner), and when its last
    deleted interaction was logged at the latest (upto), milliseconds since 1970. Whoever has read
    the log learns from it what no longer counts.
    """
    return f"nl:{{{collection}/u{partition:02d}}}:marks"


def log_key(collection: str, partition: int) -> str:
    """Returns the key of the log of a partition, 0..63."""
    return f"nl:{{{collection}/u{partition:02d}}}:log"


def dictionary_keys(collection: str) -> DictionaryKeys:
    """Returns the keys of the dictionary of a collection."""
    prefix = f"nl:{{{collection}/items}}"
    return DictionaryKeys(
        f"{prefix}:dict",
        f"{prefix}:generation",
        f"{prefix}:numbers",
        f"{prefix}:items",
        f"{prefix}:kinds",
    )


def _owner_keys(collection: str, owner_id: str, letter: str, person: bytes) -> OwnerKeys:
    prefix = f"nl:{{{collection}/u{partition_of(owner_id):02d}}}"
    # A user and a session may have the same id; `person` gives them different digests.
    hashed = hashlib.blake2b(owner_id.encode(), digest_size=_DIGEST_BYTES, person=person)
    digest = urlsafe_b64encode(hashed.digest()).decode()
    return OwnerKeys(
        f"{prefix}:{letter}:{digest}",
        f"{prefix}:e:{digest}",
        f"{prefix}:log",
        f"{prefix}:dict",
        f"{prefix}:links",
    )
