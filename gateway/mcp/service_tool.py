"""A tool: what an agent reads about it, its schemas, and the function behind it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from mcp_types import Tool, ToolAnnotations
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from gateway.mcp.service_calls import ServiceCalls
from gateway.mcp.tool_arguments import ToolArguments
from nearline.errors import InvalidRequest

# No tool takes as many; each unknown one would be reported.
_MAX_ARGUMENTS: Final = 32
_MAX_NAME: Final = 60

READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
# Both are destructive: an item that is replaced is lost, too.
WRITES: Final = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)


class _SchemaWithoutTitles(GenerateJsonSchema):
    """Leaves out titles that repeat names: agents pay for each word."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class ServiceTool:
    """A tool that asks a service.

    name, title, description: What agents and their users read. service: What must have an address
    for the tool to be offered. arguments, result: Their models. run: Does the work. annotations:
    What the tool may change.
    """

    name: str
    title: str
    description: str
    service: str
    arguments: type[ToolArguments]
    result: type[BaseModel]
    run: Callable[[ServiceCalls, Any], Awaitable[BaseModel]]
    annotations: ToolAnnotations

    def definition(self) -> Tool:
        """Returns the tool as clients list it."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=_schema(self.arguments),
            output_schema=_schema(self.result),
            annotations=self.annotations,
        )

    def parse(self, arguments: dict[str, Any]) -> ToolArguments:
        """Returns the arguments of a call. Raises: InvalidRequest: one is wrong; names it."""
        known = ", ".join(self.arguments.model_fields)
        if len(arguments) > _MAX_ARGUMENTS:
            raise InvalidRequest(
                f"{self.name} was called with {len(arguments):,} arguments; known are {known}"
            )
        try:
            return self.arguments.model_validate(arguments)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            path = ".".join(str(one)[:_MAX_NAME] for one in first["loc"])
            if first["type"] == "extra_forbidden":
                raise InvalidRequest(
                    f"{self.name} has no argument {path!r}; known are {known}", field=path
                ) from None
            raise InvalidRequest(f"{path}: {first['msg'].lower()}", field=path) from None


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    found = model.model_json_schema(schema_generator=_SchemaWithoutTitles)
    for one in (found, *found.get("$defs", {}).values()):
        # The descriptions of the models are for those who read the code.
        one.pop("title", None)
        one.pop("description", None)
    return found
