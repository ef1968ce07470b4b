"""Maps the columns of any source to the fields of an item."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray

from nearline.contract import AttributeValue, Item
from nearline.errors import InvalidRequest

DEFAULT_ID = ("_id", "id")
DEFAULT_TITLE = ("title",)
DEFAULT_TEXT = ("text",)
_ATTRIBUTES = "attributes"
_NAMES_SHOWN = 200  # Characters.


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentColumns:
    """Column names. Empty means the default of BEIR (`_id` or `id`, `title`, `text`), or no vector.

    attributes: Columns kept as attributes; if None, all columns without another role.
    also_attributes: With attributes None, columns that are attributes beside their other role.
    declared: Attributes with a declared kind; their CSV cells stay as written.
    lists: Those of them that are lists; their CSV cells are split.
    needs_text: Whether records without a text are refused.
    text_remedy: What else helps where there is no text, for errors. Optional.
    sheets: Whether a CSV file that lacks a named column is one document, with a line for each row.
    """

    id: str = ""
    title: str = ""
    text: str = ""
    vector: str = ""
    attributes: Sequence[str] | None = None
    also_attributes: Sequence[str] = ()
    declared: Sequence[str] = ()
    lists: Sequence[str] = ()
    needs_text: bool = True
    text_remedy: str = ""
    sheets: bool = False

    def item(
        self, record: Mapping[str, object], attributes: Mapping[str, object] | None = None
    ) -> Item:
        """Converts a record to an item.

        Args:
            record: Values by column; an object `attributes`, as items have it in the API, counts
                as the columns in it, unless it is named as an attribute itself.
            attributes: Attributes, where their values differ from those of the record. Optional.
        Raises: InvalidRequest: id or text is missing, or has an unsuitable type; a column is also
            in `attributes`.
        """
        inner = record.get(_ATTRIBUTES)
        if isinstance(inner, dict) and _ATTRIBUTES not in (
            *(self.attributes or ()),
            *self.also_attributes,
        ):
            outer = {name: value for name, value in record.items() if name != _ATTRIBUTES}
            if twice := inner.keys() & outer.keys():
                raise InvalidRequest(
                    f"{min(twice)} is a column and also in {_ATTRIBUTES}; rename or remove one"
                )
            record = outer | inner
        id_name = _find_column(record, self.id, DEFAULT_ID, "id")
        title_name = self.title or next((n for n in DEFAULT_TITLE if n in record), "")
        text_name = (
            self._text_column(record)
            if self.vector or not self.needs_text
            else _find_column(record, self.text, DEFAULT_TEXT, "text", self.text_remedy)
        )
        if attributes is None:
            attributes = {name: record[name] for name in self.attribute_names(list(record))}
        return Item(
            id=_as_id(record[id_name], id_name),
            title=_as_text(record.get(title_name), title_name),
            text=_as_text(record.get(text_name), text_name),
            # Still of any type; the next stage converts them to the supported kinds.
            attributes=_any_type(attributes),
            vector=_as_vector(record.get(self.vector), self.vector) if self.vector else None,
        )

    def attribute_names(self, names: Sequence[str]) -> list[str]:
        """Returns the columns that are attributes, of those that a record or table has."""
        if self.attributes is not None:
            return [name for name in self.attributes if name in names]
        used = {self.vector} - {""}
        for chosen, defaults in (
            (self.id, DEFAULT_ID),
            (self.title, DEFAULT_TITLE),
            (self.text, DEFAULT_TEXT),
        ):
            used |= {chosen or next((name for name in defaults if name in names), "")}
        return [name for name in names if name not in used or name in self.also_attributes]

    def check_names(self, names: Sequence[str], source: str) -> None:
        """Refuses a table that lacks a named column, since every row would be malformed.

        Raises: InvalidRequest: names the missing columns and the existing ones.
        """
        wanted = [self.id, self.title, self.text, self.vector]
        wanted += [*(self.attributes or ()), *self.also_attributes]
        missing = [name for name in wanted if name and name not in names]
        if not self.id and not any(name in names for name in DEFAULT_ID):
            missing.append("_id or id (or set --id-column)")
        texts = self.text or self.vector or not self.needs_text
        if not texts and DEFAULT_TEXT[0] not in names:
            remedy = f"; {self.text_remedy}" if self.text_remedy else ""
            missing.append(f"text (or set --text-column{remedy})")
        if missing:
            known = ", ".join(names)
            known = known if len(known) <= _NAMES_SHOWN else known[:_NAMES_SHOWN] + "…"
            raise InvalidRequest(
                f"{source} has no column {', '.join(missing)}; it has: {known}", field="corpus"
            )

    def _text_column(self, record: Mapping[str, object]) -> str:
        return self.text or next((name for name in DEFAULT_TEXT if name in record), "")


def _find_column(
    record: Mapping[str, object],
    chosen: str,
    defaults: Sequence[str],
    field: str,
    remedy: str = "",
) -> str:
    for name in (chosen,) if chosen else defaults:
        if name in record:
            return name
    names = " or ".join([chosen] if chosen else defaults)
    more = f"; {remedy}" if remedy else ""
    raise InvalidRequest(f"the {field} is missing: there is no {names}{more}")


def _as_id(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return str(value)
    if value is None:
        raise InvalidRequest(f"the id is missing: {name} is null")
    raise InvalidRequest(
        f"the id in {name} is of type {type(value).__name__}; use text or a whole number"
    )


def _as_text(value: object, name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, numbers.Number | datetime | date) and not isinstance(value, bool):
        return "" if isinstance(value, float) and math.isnan(value) else str(value)
    raise InvalidRequest(f"{name} is of type {type(value).__name__}; use text")


def _as_vector(value: object, name: str) -> NDArray[np.float32] | None:
    if value is None:
        return None
    try:
        vector = np.asarray(value, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"the vector in {name} is not a list of numbers") from error
    if vector.ndim != 1:
        raise InvalidRequest(f"the vector in {name} is not a flat list of numbers")
    with np.errstate(over="ignore"):
        return vector.astype(np.float32)


def _any_type(attributes: Mapping[str, object]) -> Mapping[str, AttributeValue]:
    checked: Mapping[str, AttributeValue] = attributes  # type: ignore[assignment]
    return checked
