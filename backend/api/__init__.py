"""The HTTP API's parts: forms in, answers out, errors, the OpenAPI document."""
