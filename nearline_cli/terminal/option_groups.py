"""Groups of command options: declared once, as fields of a named tuple or of a settings class."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from pydantic.fields import FieldInfo

from nearline.settings import Settings

_Command = Callable[..., None]
# The last clause of a description says what an empty value means: "Column; empty: the first."
_IF_UNSET = re.compile(r"[;.] (?:empty|0): (?P<meaning>.+)\.$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsOptions:
    """Turns fields of a settings class into options.

    A field becomes an option of the same name, type, default, range and description. A switch that
    is on by default becomes `--no-NAME`.

    settings: The class.
    only: Fields to offer. If empty, all of them.
    omit: Fields to leave out.
    metavars: Placeholders of values in the help, by field; an integer has N.
    help: Help by field, if it differs from the description.
    """

    settings: type[Settings]
    only: Collection[str] = ()
    omit: Collection[str] = ()
    metavars: Mapping[str, str] = field(default_factory=dict)
    help: Mapping[str, str] = field(default_factory=dict)

    def parameters(self) -> Iterator[inspect.Parameter]:
        """Yields a parameter of a Typer command per field."""
        for name, info in self.settings.model_fields.items():
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
        if info.default is True:
            flag = f"--no-{name.replace('_', '-')}"
            return _parameter(f"no_{name}", bool, False, typer.Option(flag, help=text))
        if isinstance(info.default, bool):
            flag = f"--{name.replace('_', '-')}"
            return _parameter(name, bool, info.default, typer.Option(flag, help=text))
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


def expand_options(command: _Command) -> _Command:
    """Replaces each parameter that is a group of options by the options of the group.

    A group is a named tuple whose fields are options, or a dictionary annotated with
    `SettingsOptions`; the command gets the tuple or the dictionary:

        @expand_options
        def build(columns: ColumnOptions, values: Annotated[dict[str, Any], SettingsOptions(…)]):
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[list[str], Callable[[dict[str, Any]], Any]]] = {}
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        hint = hints[name]
        group = next((one for one in get_args(hint) if isinstance(one, SettingsOptions)), None)
        if group is not None:
            fields, make = list(group.parameters()), group.values
        elif hasattr(hint, "_field_defaults"):
            fields, make = _fields_of_tuple(hint), functools.partial(_make_tuple, hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=parameter.KEYWORD_ONLY))
            continue
        parameters += fields
        groups[name] = [one.name for one in fields], make

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        for name, (fields, make) in groups.items():
            values[name] = make({one: values.pop(one) for one in fields})
        command(**values)

    # Typer reads the options from these.
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {one.name: one.annotation for one in parameters}
    return expanded


def _fields_of_tuple(group: Any) -> list[inspect.Parameter]:
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
    return next((getattr(one, name) for one in info.metadata if hasattr(one, name)), None)


def _parameter(name: str, kind: Any, default: Any, option: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )
