"""Profiles: deployments that a user's file names, with address, collection and credential."""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from pathlib import Path

from nearline.errors import MAX_SHOWN, InvalidRequest, SettingsError

_OPTION = "--profile"
_VARIABLE = "NEARLINE_PROFILE"
# Commands that start services of their own, which clients of a deployment would not reach.
LOCAL = frozenset(
    {"bench", "build", "certs", "compact", "demo", "doctor", "eval", "reembed", "up", "worker"}
)
# Keys of a profile, and the variables that clients and options read.
VARIABLES = {
    "address": "NEARLINE_ADDRESS",
    "collection": "NEARLINE_COLLECTION",
    "token_file": "NEARLINE_TOKEN",
    "tls_ca": "NEARLINE_TLS_CA",
    "tls_cert": "NEARLINE_TLS_CERT",
    "tls_key": "NEARLINE_TLS_KEY",
}
_FILES = ("token_file", "tls_ca", "tls_cert", "tls_key")
# Far more than such files need: another file was named by mistake.
_MAX_BYTES = 1 << 20
_MAX_TOKEN_BYTES = 16 << 10


def use_profile(words: list[str]) -> list[str]:
    """Sets the variables of a profile, and returns the command line without --profile.

    What --profile names goes before variables; those go before what NEARLINE_PROFILE names.

    Raises:
        InvalidRequest: --profile has no name, or the command starts services of its own.
        SettingsError: See `read_profile`.
    """
    words, name = _take_option(words)
    command = next((word for word in words if not word.startswith("-")), "")
    if command in LOCAL:
        if name:
            raise InvalidRequest(
                f"nearline {command} starts services of its own, on this machine, and takes no "
                f"profile; leave {_OPTION} out",
                field="profile",
            )
    elif command and "--help" not in words:
        found = read_profile(name or os.environ[_VARIABLE], profiles_file())
        os.environ.update(
            found if name else {k: v for k, v in found.items() if k not in os.environ}
        )
    return words


def _take_option(words: list[str]) -> tuple[list[str], str]:
    """Returns the words without --profile, and its value; anywhere on the line, as for --debug."""
    rest, name = [], ""
    ahead = iter(words)
    for word in ahead:
        option, separator, value = word.partition("=")
        if word == "--":
            rest += [word, *ahead]
        elif option != _OPTION:
            rest.append(word)
        else:
            name = value if separator else next(ahead, "")
            if not name or name.startswith("-"):
                raise InvalidRequest(
                    f"{_OPTION} needs a name: that of a table in {profiles_file()}", field="profile"
                )
    return rest, name


def profiles_file() -> Path:
    """Returns the path of the user's profiles."""
    import platformdirs

    return Path(platformdirs.user_config_dir("nearline")) / "profiles.toml"


def read_profile(name: str, file: Path) -> dict[str, str]:
    """Returns the variables of a profile.

    Args:
        name: Name of the profile.
        file: TOML file with a table per profile. Paths in it may be relative to its folder.
    Raises:
        SettingsError: There is no such file or profile, or it cannot be used.
    """
    text = _read(file, _MAX_BYTES, f"profile {name!r} needs it: a table [{name}] with an address")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        example = 'address = "127.0.0.1:7700"'
        raise SettingsError(f"{file}: {error}; correct it, for example: {example}") from error
    profile = tables.get(name)
    if not isinstance(profile, dict):
        near = difflib.get_close_matches(name, list(tables), n=1)
        known = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(tables) or 'none'}"
        raise SettingsError(f"{file} has no profile {name!r}; {known}")
    variables = {}
    for key, value in profile.items():
        place = f"{file}, profile {name!r}"
        if key == "token":
            raise SettingsError(
                f"{place}: a token does not belong in this file; write it into one of its own, "
                "which only you can read, and name that: token_file"
            )
        if key not in VARIABLES:
            near = difflib.get_close_matches(key, VARIABLES, n=1)
            known = f"did you mean {near[0]}?" if near else f"there are {', '.join(VARIABLES)}"
            raise SettingsError(f"{place}: {key[:MAX_SHOWN]} is no key of a profile; {known}")
        if not (isinstance(value, str) and value):
            raise SettingsError(
                f"{place}: {key} is {value!r}; a text in quotes is needed, or leave it out"
            )
        if key in _FILES:
            value = str(file.parent / Path(value).expanduser())
        variables[VARIABLES[key]] = _token(Path(value), place) if key == "token_file" else value
    return variables


def _token(file: Path, place: str) -> str:
    """Returns the token in a file. place: Where the file is named, for the error."""
    token = _read(file, _MAX_TOKEN_BYTES, f"{place} names it as token_file").strip()
    if os.name == "posix":
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise SettingsError(
                f"{file} may be read by others (mode {mode:o}), and holds a token ({place}); "
                f"run chmod 600 {file}"
            )
    if not token or len(token.split()) > 1:
        raise SettingsError(f"{file} holds no token on one line ({place}); write the token into it")
    return token


def _read(file: Path, limit: int, remedy: str) -> str:
    """Returns the text of a file of at most `limit` bytes."""
    try:
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
        if len(data) > limit:
            raise SettingsError(f"{file} has more than {limit:,} bytes; {remedy}")
        return data.decode()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{file} cannot be read: {why}; {remedy}") from error
