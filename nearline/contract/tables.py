"""Replies as tables, in pandas, Arrow and HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final

from nearline.contract.terms import Attributes
from nearline.errors import Unsupported

if TYPE_CHECKING:
    import pandas
    import pyarrow

_SHOWN_CHARACTERS: Final = 240
_SHOWN_ROWS: Final = 100


class TableReply:
    """Base of replies that are rows: `to_pandas`, `to_arrow`, and a table in notebooks.

    A row has a column for each attribute; one whose name is taken is called "attributes.NAME".
    """

    __slots__ = ()

    def _rows(self) -> Iterable[tuple[Mapping[str, Any], Attributes]]:
        """Yields the columns of each row, and its attributes."""
        raise NotImplementedError

    def _caption(self) -> str:
        """Returns a line that says where the rows are from."""
        raise NotImplementedError

    def to_pandas(self) -> pandas.DataFrame:
        """Returns the rows as a DataFrame. Raises: Unsupported: pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise Unsupported(
                "to_pandas needs pandas, which is not installed; install it: pip install pandas"
            ) from error
        return pandas.DataFrame(self._columns())

    def to_arrow(self) -> pyarrow.Table:
        """Returns the rows as a table of Arrow. Raises: Unsupported: pyarrow is not installed.

        If an attribute has lists in some rows, it has them in all; values of several kinds are
        texts.
        """
        try:
            import pyarrow
        except ImportError as error:
            raise Unsupported(
                "to_arrow needs pyarrow, which is not installed; install it: pip install pyarrow"
            ) from error
        columns = {}
        for name, values in self._columns().items():
            try:
                columns[name] = pyarrow.array(_all_lists(values))
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
                columns[name] = pyarrow.array(
                    [
                        one if one is None or isinstance(one, str) else json.dumps(one, default=str)
                        for one in values
                    ]
                )
        return pyarrow.table(columns)

    def _repr_html_(self) -> str:
        columns = self._columns()
        columns.pop("vector", None)
        return html_table(self._caption(), columns)

    def _columns(self) -> dict[str, list[Any]]:
        rows = [({**columns}, attributes) for columns, attributes in self._rows()]
        fixed = list(dict.fromkeys(name for columns, _ in rows for name in columns))
        found = {name: [columns.get(name) for columns, _ in rows] for name in fixed}
        for name in dict.fromkeys(name for _, attributes in rows for name in attributes):
            free = f"attributes.{name}" if name in fixed else name
            found[free] = [attributes.get(name) for _, attributes in rows]
        return found


def html_table(caption: str, columns: Mapping[str, Sequence[Any]]) -> str:
    """Returns a table; whatever it holds is shown as it is, and cut where it is long."""
    rows = list(zip(*columns.values(), strict=True))
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{shown(one)}</td>' for one in row)}</tr>" for row in rows[:_SHOWN_ROWS]
    )
    more = f" · the first {_SHOWN_ROWS} of {len(rows):,} rows" if len(rows) > _SHOWN_ROWS else ""
    return (
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<p><small>{escape(caption)}{more}</small></p>"
    )


def shown(value: Any) -> str:
    """Returns a value for HTML."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = str(value)
    short = text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
    return escape(short)


def _all_lists(values: Sequence[Any]) -> list[Any]:
    if not any(isinstance(one, list | tuple) for one in values):
        return list(values)
    return [
        one if one is None or not isinstance(one, str | int | float | bool) else [one]
        for one in values
    ]
