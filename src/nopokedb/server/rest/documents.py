"""/openapi.json and /docs: the interface, for programs and for people. The page is made here and loads nothing."""

from __future__ import annotations

from html import escape
from typing import Any

import orjson
from fastapi import FastAPI

from nopokedb.server.rest.replies import Header, Reply

_POLICY: tuple[Header, ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
)
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem; max-width: 60rem; }
details { border: 1px solid #8884; border-radius: 6px; margin: .4rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; } code, pre { font: 13px/1.45 ui-monospace, monospace; }
pre { overflow: auto; background: #8881; padding: .6rem; border-radius: 6px; }
b.method { display: inline-block; min-width: 4.2rem; }
"""


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with our errors in place of those of its own validation, and the key."""
    found = app.openapi()
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    found["security"] = [{"key": []}]
    for path in found["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = {
                "description": "What was expected, what came, and what to do.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
    return found


_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "message", "request_id"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "request_id": {"type": "string"},
                "committed": {"type": "array", "items": {}},
            },
        }
    },
}


def openapi_reply(found: dict[str, Any]) -> Reply:
    return Reply(orjson.dumps(found))


def page_reply(found: dict[str, Any]) -> Reply:
    """The document as one page."""
    schemas = found["components"]["schemas"]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(found['info']['title'])} API</title>"
        f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{escape(found['info']['title'])} {escape(found['info']['version'])}</h1>"
        "<p>Send <code>Authorization: Bearer KEY</code> where the server has keys. The same as data: "
        "<a href=/openapi.json>openapi.json</a>.</p>"
    ]
    for path, methods in found["paths"].items():
        parts += [_operation(path, method, operation) for method, operation in methods.items()]
    parts.append("<h2>Objects</h2>")
    parts += [
        f"<details id={escape(name)}><summary><code>{escape(name)}</code></summary>{_json(schema)}</details>"
        for name, schema in sorted(schemas.items())
    ]
    return Reply("".join(parts).encode(), media_type=b"text/html; charset=utf-8", headers=_POLICY)


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = ", ".join(
        f"<code>{escape(item['name'])}</code> ({escape(item['in'])})" for item in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    return (
        f"<details><summary><b class=method>{method.upper()}</b> <code>{escape(path)}</code> "
        f"{escape(operation.get('summary', ''))}</summary>"
        + (f"<p>Parameters: {parameters}.</p>" if parameters else "")
        + (f"<p>Body:</p>{_json(body)}" if body else "")
        + "</details>"
    )


def _json(value: Any) -> str:
    return f"<pre>{escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
