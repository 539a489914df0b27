"""Makes gen/openapi.json, the OpenAPI 3.1 document of the REST surface, from the contracts."""
