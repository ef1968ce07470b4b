"""How a command reads its line: old names of options, and `--wait` with or without a duration."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

# Names that options had. They are read as before, and no help shows them.
_OLD_NAMES = {
    "--address": ("--router",),
    "--limit": ("-k", "--k", "--documents"),
    "--young": ("--force",),
}
_WAIT = "--wait"


class NearlineCommand(TyperCommand):
    """A command that also reads old names of its options, and `--wait` without a value."""

    def make_parser(self, ctx: Any) -> Any:
        """Returns the parser of this command's line."""
        parser: Any = super().make_parser(ctx)
        options = self._options()
        taken = {name for one in options for name in (*one.opts, *one.secondary_opts)}
        for option in options:
            shown = option.opts
            old = [was for now in shown for was in _OLD_NAMES.get(now, ()) if was not in taken]
            if old:
                option.opts = old
                option.add_to_parser(parser, ctx)
                option.opts = shown
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the line."""
        if _WAIT in args and any(_WAIT in one.opts for one in self._options()):
            args = _with_value(args)
        return super().parse_args(ctx, args)

    def _options(self) -> list[Any]:
        return [one for one in self.params if one.param_type_name == "option"]


def _with_value(args: list[str]) -> list[str]:
    """Returns a line in which `--wait` has a value, unless a duration follows it."""
    # Imported late: few lines wait.
    from nearline.durations import is_duration
    from nearline_cli.terminal.durations import NO_LIMIT

    end = args.index("--") if "--" in args else len(args)
    return [
        f"{_WAIT}={NO_LIMIT}"
        if word == _WAIT and at < end and not is_duration("".join(args[at + 1 : at + 2]))
        else word
        for at, word in enumerate(args)
    ]
