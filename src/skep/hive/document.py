"""What the hive's routes share in their OpenAPI document, and what Litestar cannot know of it."""

from typing import Annotated, Any

import msgspec
from litestar import Litestar
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import RequestBody
from litestar.params import Parameter

from skep.hive.core import Core
from skep.spec.ids import ID_PATTERN
from skep.wire.errors import ErrorBody
from skep.wire.hive import DeclareRequest, DrainRequest, ReloadRequest

ERRORS = {
    400: "The request is wrong; `violations` names each field",
    401: "The bearer token is missing or wrong",
    403: "This machine's own configuration forbids it",
    404: "There is no such pool here",
    409: "It cannot be done in the pool's present state, or the declaration is older than the present one",
    415: "The body is not JSON",
    503: "Not now; later may work",
}

Hive = NamedDependency[Core]
PoolId = Annotated[str, Parameter(description="The pool's id", pattern=ID_PATTERN, max_length=64)]


def errors(*more: int) -> dict[int, ResponseSpec]:
    """Return the error answers of a route, for its document."""
    return {
        status: ResponseSpec(data_container=ErrorBody, description=ERRORS[status], generate_examples=False)
        for status in (400, 401, *more)
    }


BODIES = (DeclareRequest, DrainRequest, ReloadRequest)
"""What clients send. Litestar's schemas of them lose what msgspec holds them to inside unions and tuples."""

OPTIONAL_BODIES = ("/v2/pools/{pool_id}/drain", "/v2/pools/{pool_id}/reload")


def complete(app: Litestar) -> Litestar:
    """Complete the document of an application and return it."""
    document = app.openapi_schema
    _, exact = msgspec.json.schema_components(BODIES, ref_template="#/components/schemas/{name}")
    schemas: dict[str, Any] = {**(document.components.schemas or {}), **exact}
    document.components.schemas = schemas
    for path in OPTIONAL_BODIES:
        operation = (document.paths or {})[path].post
        assert operation is not None
        assert isinstance(operation.request_body, RequestBody)
        operation.request_body.required = False
    return app
