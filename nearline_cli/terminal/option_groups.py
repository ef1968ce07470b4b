"""Groups of command options: declared once, as fields of a named tuple or of a settings class."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from nearline_cli.terminal.command_line import NearlineCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_Function = Callable[..., None]
# The last clause of a description says what an empty value means: "Column; empty: the first."
_IF_UNSET = re.compile(r"[;.] (?:empty|0): (?P<meaning>.+)\.$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOptions:
    """Turns fields of a settings class into options.

    A field becomes an option of the same name, type, default, range and description. A switch that
    is on by default becomes `--no-NAME`.

    module, name: The settings class; it is imported when the command is first used.
    only: Fields to offer. If empty, all of them.
    omit: Fields to leave out.
    metavars: Placeholders of values in the help, by field; an integer has N.
    help: Help by field, if it differs from the description.
    """

    module: str
    name: str
    only: Collection[str] = ()
    omit: Collection[str] = ()
    metavars: Mapping[str, str] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yields a parameter of a Typer command per field."""
        settings = getattr(importlib.import_module(self.module), self.name)
        for name, info in settings.model_fields.items():
            if name not in self.omit and (not self.only or name in self.only):
                yield self._parameter(name, info)

    def values(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Returns values of `parameters` as values of the fields."""
        return {
            name.removeprefix("no_"): not value if name.startswith("no_") else value
            for name, value in options.items()
        }

    def _parameter(self, name: str, info: FieldInfo) -> inspect.Parameter:
        text = self.help.get(name, info.description or "").replace("[", "\\[")
        flag = f"--{name.replace('_', '-')}"
        if info.default is True:
            option = typer.Option(f"--no-{flag.removeprefix('--')}", help=text)
            return _parameter(f"no_{name}", bool, False, option)
        if info.default is False:
            return _parameter(name, bool, False, typer.Option(flag, help=text))
        unset = None if info.default else _IF_UNSET.search(text)
        if unset is not None:
            text = f"{text[: unset.start()]}. \\[default: {unset['meaning']}]"
        kind: Any = info.annotation
        metavar = self.metavars.get(name, "N" if kind is int else None)
        if get_origin(kind) is Literal:
            metavar, kind = "|".join(get_args(kind)), str
        option = typer.Option(
            metavar=metavar,
            help=text,
            min=_limit(info, "ge"),
            max=_limit(info, "le"),
            show_default=unset is None,
        )
        return _parameter(name, kind, info.default, option)


def add_command(app: typer.Typer, function: _Function, name: str | None = None) -> None:
    """Adds a command some of whose parameters are groups of options.

    A group is a named tuple whose fields are options, or a dictionary annotated with
    `SettingsOptions`. The command takes the options of the group, and gets the tuple or the
    dictionary.
    """

    @functools.wraps(function)
    def without_options() -> None:
        raise AssertionError("the command runs the function that has the options")

    # Typer reads the parameters of all commands at every start; those of groups come later.
    without_options.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
    without_options.__annotations__ = {}
    app.command(name, cls=_GroupedCommand)(without_options)


class _GroupedCommand(NearlineCommand):
    """A command that generates its options when they are first needed.

    Loading settings takes a tenth of a second, which other commands should not spend.
    """

    @functools.cached_property
    def _complete(self) -> NearlineCommand:
        app = typer.Typer(add_completion=False)
        app.command(cls=NearlineCommand)(expand(self._function))
        return cast(NearlineCommand, typer.main.get_command(app))

    @property
    def params(self) -> list[Any]:
        return self._complete.params

    @params.setter
    def params(self, value: list[Any]) -> None:
        """Drops the parameters that Typer found: there are none."""

    @property
    def callback(self) -> Callable[..., Any] | None:
        return self._complete.callback

    @callback.setter
    def callback(self, value: Callable[..., Any] | None) -> None:
        assert value is not None
        self._function = inspect.unwrap(value)


def expand(function: _Function) -> _Function:
    """Returns the function with one parameter per option in place of each group of options."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[list[str], Callable[[dict[str, Any]], Any]]] = {}
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        group = next((one for one in get_args(hint) if isinstance(one, SettingsOptions)), None)
        if group is not None:
            fields, make = list(group.parameters()), group.values
        elif hasattr(hint, "_field_defaults"):
            fields, make = _tuple_parameters(hint), functools.partial(_make_tuple, hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY))
            continue
        parameters += fields
        groups[name] = [field.name for field in fields], make

    def call(values: dict[str, Any]) -> None:
        for name, (fields, make) in groups.items():
            values[name] = make({field: values.pop(field) for field in fields})
        function(**values)

    expanded: Any = lambda **values: call(values)  # noqa: E731  # Its signature is set below.
    functools.update_wrapper(expanded, function)
    expanded.__signature__ = inspect.Signature(parameters)
    expanded.__annotations__ = {one.name: one.annotation for one in parameters}
    command: _Function = expanded
    return command


def _tuple_parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=group._field_defaults[name],
            annotation=hints[name],
        )
        for name in group._fields
    ]


def _make_tuple(group: Any, values: dict[str, Any]) -> Any:
    return group(**values)


def _limit(info: FieldInfo, name: str) -> float | None:
    return next(
        (getattr(constraint, name) for constraint in info.metadata if hasattr(constraint, name)),
        None,
    )


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
