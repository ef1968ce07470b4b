"""The command line: loads the command that is named, and turns errors into one line and a code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline_cli.terminal.root_group import RootGroup

if TYPE_CHECKING:
    from nearline.errors import NearlineError

_FAILED = 1
_MISUSED = 2

app = typer.Typer(
    name="nearline",
    cls=RootGroup,
    help="Recommendation and RAG retrieval over your own catalogue and documents.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad arguments or settings, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# A line that cannot be read.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
# Of errors of the machine that no command expected, and that are no bug of ours.
_ACCESS = "give this user access, or name another place"
_REMEDIES = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or raise the quota",
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def _version(requested: bool) -> None:
    if requested:
        import nearline

        print(f"nearline {nearline.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            envvar="NEARLINE_PROFILE",
            metavar="NAME",
            help="Deployment to use: a table of profiles.toml in your configuration folder.",
        ),
    ] = "",
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Declares the options that every command takes; `run` acts on --profile and --debug."""


def run(arguments: Sequence[str]) -> None:
    """Runs the command line and exits with its exit code."""
    words = list(arguments)
    # Anywhere on the line: people append it to the command that failed.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    as_json = "--json" in words
    try:
        words = _use_profile(words)
        # Out of this mode, Typer returns an exit code, and raises what is wrong with a line.
        sys.exit(app(words, prog_name="nearline", standalone_mode=False) or 0)
    except SystemExit as ended:
        # `nearline … | head`: the reader has read enough. Typer treats that as a failure.
        if isinstance(ended.__context__, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        raise
    except Exception as error:
        # Imported late, as clients are: completion needs neither.
        from nearline.errors import InvalidRequest, SettingsError
        from nearline_cli.terminal import output

        if debug:
            traceback.print_exc()
        if isinstance(error, _UsageError) and not str(error):
            # A group without a command has shown its help.
            sys.exit(_MISUSED)
        reported = _as_nearline_error(error, words)
        output.print_error(reported, as_json=as_json)
        sys.exit(_MISUSED if isinstance(reported, SettingsError | InvalidRequest) else _FAILED)


def _use_profile(words: list[str]) -> list[str]:
    """Sets the variables of the profile that is named, and returns the line without --profile."""
    named = any(word.partition("=")[0] == "--profile" for word in words)
    if not (named or os.environ.get("NEARLINE_PROFILE")):
        return words
    from nearline_cli.terminal.profiles import use_profile

    return use_profile(words)


def _as_nearline_error(error: Exception, words: Sequence[str]) -> NearlineError:
    from nearline.errors import InternalError, InvalidRequest, NearlineError, StoreError
    from nearline_cli.terminal.missing_packages import missing_package

    # Python replaces each byte of an argument that it could not decode by a surrogate; clients
    # report that as an argument of theirs.
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, UnicodeEncodeError):
        origin = origin.__context__
    if origin is not None and any(origin.object in word for word in words):
        return InvalidRequest("an argument has bytes that are not UTF-8; pass it as UTF-8 text")
    if isinstance(error, NearlineError):
        return error
    if isinstance(error, _UsageError):
        return InvalidRequest(_usage(error))
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        what = error.filename or "a file"
        return StoreError(f"{what}: {error.strerror}; {_REMEDIES[error.errno]}")
    if isinstance(error, ModuleNotFoundError) and (lacking := missing_package(error)):
        return lacking
    return InternalError(
        f"{type(error).__name__}: {error}. This is a bug; --debug shows where it happened"
    )


def _usage(error: Any) -> str:
    """Returns what is wrong with a line, and which help to read."""
    path = error.ctx.command_path if error.ctx is not None else "nearline"
    return f"{error.format_message().rstrip('.')}; see {path} --help"
