"""Keys in a file: made, found, expired, revoked, replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nearline.access.api_keys import KeyFile, hash_key, make_key, read_keys
from nearline.access.rights import Right
from nearline.errors import SettingsError, Unauthenticated


def table(key_id: str, digest: str, more: str = "") -> str:
    return (
        f'[[key]]\nid = "{key_id}"\nsha256 = "{digest}"\ntenant = "shop"\n'
        f'rights = {{ "*" = "read" }}\n{more}\n'
    )


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_is_random_and_only_its_hash_is_stored() -> None:
    made = [make_key() for _ in range(50)]
    assert len({key for key, _, _ in made}) == len({key_id for _, key_id, _ in made}) == 50
    for key, key_id, digest in made:
        assert key.startswith(f"nl_{key_id}_") and digest == hash_key(key)
        # 32 random bytes in base64.
        assert len(key) == len("nl__") + 8 + 43
        assert read_keys(table(key_id, digest))[key_id].sha256 == digest


def test_a_key_names_its_caller(tmp_path: Path) -> None:
    key, key_id, digest = make_key()
    file = tmp_path / "keys.toml"
    more = 'roles = ["staff", "night"]\n'
    text = table(key_id, digest, more).replace('"*" = "read"', 'products = "write", "*" = "read"')
    file.write_text(text)
    caller = KeyFile(file).identify(key)
    assert (caller.name, caller.tenant, caller.roles) == (key_id, "shop", ("night", "staff"))
    assert caller.rights == {"products": Right.WRITE, "*": Right.READ}


def test_only_the_whole_key_is_accepted(tmp_path: Path) -> None:
    key, key_id, digest = make_key()
    other, other_id, _ = make_key()
    file = tmp_path / "keys.toml"
    file.write_text(table(key_id, digest))
    keys = KeyFile(file)
    secret = key.rpartition("_")[2]
    for wrong in (
        other,
        f"nl_{key_id}_{'A' * 43}",
        f"nl_{other_id}_{secret}",
        key[:-1],
        f"{key}A",
        f" {key}",
        key.upper(),
        digest,
        "nl_",
        "",
    ):
        with pytest.raises(Unauthenticated, match="unknown"):
            keys.identify(wrong)
    assert keys.identify(key).name == key_id


def test_a_key_is_refused_from_the_second_in_which_it_expires(tmp_path: Path) -> None:
    key, key_id, digest = make_key()
    file = tmp_path / "keys.toml"
    file.write_text(table(key_id, digest, "expires = 2027-01-15T08:00:00Z"))
    clock = Clock()
    keys = KeyFile(file, clock)
    # 2027-01-15T08:00:00Z is 1,800,000,000 s after 1970.
    clock.now_s -= 1
    assert keys.identify(key).name == key_id
    clock.now_s += 1
    with pytest.raises(Unauthenticated, match="has expired"):
        keys.identify(key)


def test_a_time_without_a_zone_is_utc() -> None:
    _, key_id, digest = make_key()
    for text in ("2027-01-15T08:00:00", "2027-01-15T08:00:00Z", "2027-01-15T09:00:00+01:00"):
        found = read_keys(table(key_id, digest, f"expires = {text}"))
        assert found[key_id].expires_s == 1_800_000_000


def test_keys_are_added_and_revoked_while_the_service_runs(tmp_path: Path) -> None:
    (old, old_id, old_digest), (new, new_id, new_digest) = make_key(), make_key()
    file, clock = tmp_path / "keys.toml", Clock()
    file.write_text(table(old_id, old_digest))
    keys = KeyFile(file, clock)
    with pytest.raises(Unauthenticated):
        keys.identify(new)

    # Both are valid while clients change from one to the other; a new one is, at once.
    file.write_text(table(old_id, old_digest) + table(new_id, new_digest))
    assert (keys.identify(old).name, keys.identify(new).name) == (old_id, new_id)

    # As Kubernetes replaces a file: another one under the same name.
    (tmp_path / "next").write_text(table(new_id, new_digest))
    os.replace(tmp_path / "next", file)
    clock.now_s += 1
    with pytest.raises(Unauthenticated, match="unknown"):
        keys.identify(old)
    assert keys.identify(new).name == new_id


def test_a_file_that_is_damaged_later_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    key, key_id, digest = make_key()
    file, clock = tmp_path / "keys.toml", Clock()
    file.write_text(table(key_id, digest))
    keys = KeyFile(file, clock)
    for damage in ("[[key", None):
        if damage is None:
            file.unlink()
        else:
            file.write_text(damage)
        clock.now_s += 1
        assert keys.identify(key).name == key_id


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[[key]]", "[[keys]]", "unknown table 'keys'"),
        ("[[key]]", "[key]", "list of tables"),
        ("tenant =", "owner =", "unknown field 'owner'"),
        ('tenant = "shop"', 'tenant = ""', "tenant is missing"),
        ('"read"', '"delete"', "right 'delete' in '\\*' is none of read, write, admin, service"),
        ('rights = { "*" = "read" }', "rights = {}", "rights is missing"),
        ('rights = { "*" = "read" }', "", "rights is missing"),
        ('"*" = "read"', '"*" = "service"', 'for tenant "\\*" and all collections'),
        ('id = "', 'id = "Z', "is not the id of a key"),
        ('sha256 = "', 'sha256 = "f', "64 hexadecimal digits"),
        ("\n\n", '\nroles = "staff"\n', "roles is not a list"),
        ("\n\n", '\nexpires = "soon"\n', "expires is not a time"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(
    old: str, new: str, says: str, tmp_path: Path
) -> None:
    _, key_id, digest = make_key()
    text = table(key_id, digest)
    assert old in text
    file = tmp_path / "keys.toml"
    file.write_text(text.replace(old, new))
    with pytest.raises(SettingsError, match=says):
        KeyFile(file)


def test_two_keys_may_not_have_one_id(tmp_path: Path) -> None:
    _, key_id, digest = make_key()
    file = tmp_path / "keys.toml"
    file.write_text(table(key_id, digest) * 2)
    with pytest.raises(SettingsError, match="another key has id"):
        KeyFile(file)
    with pytest.raises(SettingsError, match="keys create"):
        KeyFile(tmp_path / "absent.toml")
