"""`/docs`: the service's paths as one plain page, made of `/openapi.json`, from no other host.

FastAPI's own page loads its script and style from a CDN, which a closed network has not.
"""

import json
from html import escape
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

_STYLE: Final = """
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 sans-serif }
h2 { margin-top: 2.5rem; font-size: 1.1rem } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
tr + tr { border-top: 1px solid #ddd } code, pre { font: 14px/1.5 monospace }
pre { background: #f3f3f3; padding: .6rem; overflow-x: auto }
"""


def add_docs(app: FastAPI) -> None:
    """Answer `GET /docs`."""

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url).rstrip("/")))


def docs_page(document: dict[str, Any], base: str) -> str:
    """The page.

    Args:
        document: OpenAPI, as `/openapi.json` answers it.
        base: address of the service, for the examples: `http://127.0.0.1:8080`.

    Returns:
        HTML, without a script and without a link to another host.
    """
    info = document["info"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{escape(info["title"])}</title>',
        f"<style>{_STYLE}</style>",
        f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('description', ''))}</p>",
        '<p>For programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += _operation(document, base, path, method.upper(), operation)
    return "\n".join([*parts, "</html>\n"])


def _operation(
    document: dict[str, Any], base: str, path: str, method: str, operation: dict[str, Any]
) -> list[str]:
    parts = [
        f"<h2><code>{method} {escape(path)}</code></h2>",
        f"<p>{escape(operation.get('description', ''))}</p>",
    ]
    body = _resolved(document, _json_schema(operation.get("requestBody", {})))
    header = ' -H "Authorization: Bearer $TOKEN"' if "security" in document else ""
    line = f"curl -s {base}{path}{header}"
    if body:
        example = json.dumps(body.get("example", {}))
        line += f" -H \"Content-Type: application/json\" -d '{example}'"
    parts.append(f"<pre>{escape(line)}</pre>")
    parts += _fields(document, "field of the request", body)
    if operation.get("parameters"):
        named = {one["name"]: one["schema"] for one in operation["parameters"]}
        parts += _fields(document, "in the path", {"properties": named})
    answers = []
    for status, answer in operation["responses"].items():
        schema = _resolved(document, _json_schema(answer))
        if status == "200":
            parts += _fields(document, "field of the answer", schema)
        answers.append((status, answer.get("description", "")))
    return [*parts, *_table("status", [(status, "", text) for status, text in answers])]


def _json_schema(part: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = part.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema itself, where it is named by a reference."""
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return found


def _fields(document: dict[str, Any], title: str, schema: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    rows = []
    for name, field in schema.get("properties", {}).items():
        optional = "" if name in required or not required else "; may be left out"
        rows.append((name, _type(document, field) + optional, field.get("description", "")))
    return _table(title, rows)


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """In words: `integer, 0 to 9`, `list of 1 to 9 of …`, the fields of an object."""
    schema = _resolved(document, schema)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(document, one) for one in schema["anyOf"]))
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list{_bounds(schema, 'Items')} of {_type(document, schema.get('items', {}))}"
    if kind == "object" and schema.get("properties"):
        return "{" + ", ".join(schema["properties"]) + "}"
    return kind + _bounds(schema, "Length") + _bounds(schema, "imum")


def _bounds(schema: dict[str, Any], of: str) -> str:
    least, most = schema.get(f"min{of}"), schema.get(f"max{of}")
    if least is None and most is None:
        return ""
    if most is None:
        return f" of at least {least:g}"
    return f" of {least or 0} to {most}"


def _table(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    if not rows:
        return []
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code><td>{escape(kind)}<td>{escape(text)}"
        for name, kind, text in rows
    )
    return [f"<table><tr><th>{title}<th><th>{cells}</table>"]
