"""Options and arguments under the same rules as the API's fields."""

from typing import Annotated, Any

import click
from pydantic import Field, TypeAdapter, ValidationError

from service.wire.complaints import complaint
from service.wire.text import Email, Text


class Checked(click.ParamType[Any]):
    """A value that one of the wire's types accepts; `name` is what --help shows."""

    def __init__(self, name: str, accepted: Any) -> None:
        self.name = name
        self._adapter: TypeAdapter[Any] = TypeAdapter(accepted)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as the wire would take it; one line of what is wrong with it otherwise."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError as failure:
            error = failure.errors(include_url=False, include_input=False)[0]
            self.fail(f"{value!r} {complaint(error)}", param, ctx)


EMAIL = Checked("email", Email)
NAME = Checked("name", Annotated[Text, Field(min_length=1, max_length=100)])
COMPANY = Checked("company", Annotated[Text, Field(min_length=1, max_length=200)])
ENTITY_ID = Checked("id", Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")])
