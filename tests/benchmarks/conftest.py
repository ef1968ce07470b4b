"""The `nearline` command, as the tests of the command line run it."""

from tests.nearline_cli.conftest import nearline

__all__ = ["nearline"]
