"""The commands as a group that loads each of them when it is used."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import CompletionItem, TyperCommand, TyperGroup  # type: ignore[attr-defined]

from nearline_cli.command_table import CommandEntry, command_table
from nearline_cli.terminal.command_line import NearlineCommand
from nearline_cli.terminal.option_groups import expand


class _LazyCommands(Mapping[str, Any]):
    """The commands by name, each loaded when it is first looked up."""

    def __init__(self, table: Mapping[str, CommandEntry]) -> None:
        self._table = dict(table)
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load_command(name, self._table[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table


_COMMANDS = _LazyCommands(command_table())


class RootGroup(TyperGroup):
    """The command `nearline`: loads the one that is named."""

    @property
    def commands(self) -> Any:
        """The commands by name, a mapping."""
        return _COMMANDS

    @commands.setter
    def commands(self, value: object) -> None:
        """Drops the commands that Typer found: there are none."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of the commands, in the order of the help."""
        return list(self.commands)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        """Returns what may follow. Help is left out: it would load every command."""
        options = super(TyperGroup, self).shell_complete(ctx, incomplete)
        names = [name for name in self.commands if name.startswith(incomplete)]
        return [*map(CompletionItem, names), *options]


def _load_command(name: str, entry: CommandEntry) -> Any:
    """Returns a command, or a group; its module's PANELS are the topics of its options."""
    module = importlib.import_module(entry.module)
    found = getattr(module, entry.name)
    if not isinstance(found, typer.Typer):
        app = typer.Typer(add_completion=False)
        app.command(name)(expand(found))
        found = app
    _prepare(found)
    found._add_completion = False
    command = typer.main.get_command(found)
    command.name, command.rich_help_panel = name, entry.panel  # type: ignore[attr-defined]
    for panel, names in getattr(module, "PANELS", {}).items():
        for option in command.params:
            if option.name in names.split():
                option.rich_help_panel = panel  # type: ignore[attr-defined]
    return command


def _prepare(app: typer.Typer) -> None:
    """Makes commands read old names of options, and joins the lines of each paragraph of help.

    Typer would break the lines where the code does.
    """
    for command in app.registered_commands:
        text = command.help or inspect.getdoc(command.callback) or ""
        command.help = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
        if command.cls is TyperCommand:
            command.cls = NearlineCommand
    for inner in app.registered_groups:
        if inner.typer_instance is not None:
            _prepare(inner.typer_instance)
