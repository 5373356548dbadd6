# SPDX-License-Identifier: Apache-2.0
"""`.. openapi-operations:: TAG …` and `.. openapi-schema:: NAME …`: out of the service's own document.

The document is made by the code that serves it, so the reference says what the service does.
"""

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes, statemachine
from oslo_config import cfg
from sphinx import application
from sphinx.util import docutils

from ciming import config
from ciming.api import app

JSON = dict[str, Any]
BOUNDS = {
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "maxProperties": "at most {} entries",
    "minimum": "from {}",
    "maximum": "to {}",
}


@functools.cache
def document() -> JSON:
    """The document, as a client gets it."""
    config.register(cfg.CONF)
    answer = app.create_flask_app().test_client().get("/v1/openapi.json")
    found: JSON = answer.get_json()
    return found


def resolved(item: JSON) -> JSON:
    """What a reference means."""
    while "$ref" in item:
        _, *path = item["$ref"].split("/")
        item = functools.reduce(lambda found, name: found[name], path, document())
    return item


class _Rendered(docutils.SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    has_content = False

    def run(self) -> list[nodes.Node]:
        """Parse what was rendered."""
        lines = statemachine.StringList([], "")
        for name in self.arguments[0].split():
            for line in self.render(name):
                lines.append(line, "the OpenAPI document")
        parent = nodes.section()
        parent.document = self.state.document
        self.state.nested_parse(lines, 0, parent, match_titles=True)
        return parent.children

    def render(self, name: str) -> Iterator[str]:
        """Lines of reStructuredText."""
        raise NotImplementedError


class Operations(_Rendered):
    """All operations with a tag, each in a section."""

    def render(self, name: str) -> Iterator[str]:
        """One section after the other."""
        for path, methods in document()["paths"].items():
            shared = methods.get("parameters", [])
            for method, operation in methods.items():
                if method != "parameters" and name in operation["tags"]:
                    yield from _operation(method.upper(), path, operation, shared)


class Schema(_Rendered):
    """The fields of an object in answers or requests."""

    def render(self, name: str) -> Iterator[str]:
        """A table."""
        yield from _fields(document()["components"]["schemas"][name])


def _operation(method: str, path: str, operation: JSON, shared: list[JSON]) -> Iterator[str]:
    yield from _title(f"{method} {path}", "-")
    yield from _text(operation["summary"].rstrip(".") + ".")
    if "description" in operation:
        yield from _text(operation["description"])
    if operation.get("security") == []:
        yield from _text("Needs no token.")
    parameters = [resolved(each) for each in (*shared, *operation.get("parameters", []))]
    yield from _parameters([each for each in parameters if each["in"] != "header"])
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = resolved(content["schema"])
        yield from _text(f"The body is ``{kind}``.")
        if "properties" in schema:
            yield from _fields(schema)
            yield from _example(schema)
    yield from _answers(operation["responses"])


def _parameters(parameters: list[JSON]) -> Iterator[str]:
    rows = [
        (f"``{each['name']}``", each["in"], _described(each["schema"], each.get("description", "")))
        for each in parameters
    ]
    yield from _table(("Parameter", "In", "Meaning"), rows)


def _fields(schema: JSON) -> Iterator[str]:
    needed = schema.get("required", [])
    rows = [
        (f"``{name}``", "" if name in needed else "optional", _type(field), _described(field))
        for name, field in schema["properties"].items()
    ]
    yield from _table(("Field", "", "Type", "Meaning"), rows)


def _example(schema: JSON) -> Iterator[str]:
    known = schema["properties"].items()
    body = {name: field["example"] for name, field in known if "example" in field}
    yield from (".. code-block:: json", "")
    yield from (f"   {line}" for line in json.dumps(body, indent=2).splitlines())
    yield ""


def _answers(responses: JSON) -> Iterator[str]:
    rows = []
    for status, response in sorted(responses.items()):
        answer = resolved(response)
        parts = [_markup(answer["description"].rstrip(".")) + "."]
        for content in answer.get("content", {}).values():
            if int(status) < 400:
                parts.append(f"The body is {_type(content['schema'])}.")
        own = [name for name, header in answer.get("headers", {}).items() if "$ref" not in header]
        parts += [f"Header ``{name}``: {_markup(answer['headers'][name]['description'])}" for name in own]
        rows.append((status, " ".join(parts)))
    yield from _table(("Status", "Answer"), rows)


def _type(schema: JSON) -> str:
    for alternatives in ("oneOf", "anyOf"):
        if alternatives in schema:
            words = [_type(each) for each in schema[alternatives] if each.get("enum") != [None]]
            null = ["null"] if any(each.get("enum") == [None] for each in schema[alternatives]) else []
            return " or ".join([*words, *null])
    if "$ref" in schema:
        return f"``{schema['$ref'].rpartition('/')[2]}``"
    kind = str(schema.get("format", schema.get("type", "any")))
    if kind == "array":
        kind = f"list of {_type(schema['items'])}"
    elif schema.get("type") == "string" and schema.get("enum") and len(schema["enum"]) == 1:
        kind = f'"{schema["enum"][0]}"'
    return f"{kind} or null" if schema.get("nullable") else kind


def _described(schema: JSON, description: str = "") -> str:
    text = description or schema.get("description", "")
    parts = [_markup(text.rstrip(".")) + "."] if text else []
    if len(schema.get("enum", [])) > 1:
        parts.append("One of " + ", ".join(f"``{word}``" for word in schema["enum"]) + ".")
    bounds = [words.format(schema[name]) for name, words in BOUNDS.items() if name in schema]
    if bounds:
        parts.append((", ".join(bounds) + ".").capitalize())
    return " ".join(parts)


def _markup(text: str) -> str:
    """Markdown's code marks are reStructuredText's, doubled."""
    return re.sub(r"`+([^`]+)`+", r"``\1``", text).replace("*", r"\*")


def _title(text: str, line: str) -> Iterator[str]:
    yield from (text, line * len(text), "")


def _text(text: str) -> Iterator[str]:
    yield from (_markup(text), "")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    if not rows:
        return
    yield from (".. list-table::", "   :header-rows: 1", "   :widths: auto", "")
    for row in (head, *rows):
        for number, cell in enumerate(row):
            yield f"   {'*' if number == 0 else ' '} - {cell}".rstrip()
    yield ""


def setup(sphinx: application.Sphinx) -> dict[str, bool]:
    """Make the directives known."""
    sphinx.add_directive("openapi-operations", Operations)
    sphinx.add_directive("openapi-schema", Schema)
    return {"parallel_read_safe": True}
