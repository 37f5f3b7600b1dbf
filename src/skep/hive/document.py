"""What Litestar cannot know of the hive's API, put into its OpenAPI document."""

from litestar import Litestar
from litestar.openapi.spec import RequestBody, Schema

CLOSED = ("PoolSpec", "DrainRequest", "ReloadRequest")
"""Bodies that refuse fields they do not know: a misspelt setting must not be silently ignored."""

OPTIONAL_BODIES = ("/v2/pools/{pool_id}/drain", "/v2/pools/{pool_id}/reload")


def complete(app: Litestar) -> Litestar:
    """Complete the document of an application and return it."""
    document = app.openapi_schema
    for name in CLOSED:
        schema = (document.components.schemas or {})[name]
        assert isinstance(schema, Schema)
        schema.additional_properties = False
    for path in OPTIONAL_BODIES:
        operation = (document.paths or {})[path].post
        assert operation is not None
        assert isinstance(operation.request_body, RequestBody)
        operation.request_body.required = False
    return app
