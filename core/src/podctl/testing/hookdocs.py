"""The hook reference, made from the specs' and values' own source.

Documentation written beside the code it describes goes stale; this cannot: signatures, fields and
texts are the source's, and a test compares the page with what this module makes.
"""

from __future__ import annotations

import ast
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: modules whose classes a provider handles, in the order of the page
VALUES = ("fetching", "layout", "layoutfiles", "trusting", "plan", "confinement")

_HEAD = """\
# Hook reference

<!-- Made by script/hook-reference from core/src/podctl/api/hookspecs.py and core/src/podctl/model;
     a test compares. Do not edit. -->

"""

_GROUPS = """\

All hooks and values are there since version 0.1.0 unless they say otherwise. Adding an argument to
a hook is compatible, since a provider takes only those it names; renaming or removing one is not.

A provider that lacks a hook marked *optional* below is asked nothing; one that lacks another hook
is reported as broken when that hook is needed. An exception that is no `podctl.errors.PodctlError`
is a defect of the provider: the message names its distribution, version and entry point. What a
provider prints goes to stderr, never into podctl's results. Importing a provider may take 30
seconds.

"""

_WIDTH = 100

#: hooks a provider may leave out: podctl.plugins.handles answers for it
OPTIONAL = frozenset(
    {
        "transport_preload",
        "transport_normalise",
        "transport_configure",
        "transport_open_local",
        "transport_signature",
        "transport_keys",
        "format_documents",
        "format_preload",
        "trust_preload",
        "trust_recognises",
        "stage1_check_host",
        "stage1_prepare",
        "stage1_gc",
        "isolator_lacks",
        "image_verified",
        "pod_starting",
        "app_adding",
        "pod_removed",
    }
)


def page() -> str:
    """The whole page, as Markdown."""
    package = os.path.dirname(os.path.dirname(__file__))
    specs = _parse(os.path.join(package, "api", "hookspecs.py"))
    parts = [_HEAD, _markdown(ast.get_docstring(specs) or ""), _GROUPS]
    for node in _classes(specs):
        parts += _spec(node)
    parts.append("## Values\n\n")
    for name in VALUES:
        module = _parse(os.path.join(package, "model", f"{name}.py"))
        parts.append(f"### `podctl.model.{name}`\n\n")
        parts.append(_markdown(ast.get_docstring(module) or "") + "\n")
        for node in _classes(module):
            parts += _value(node)
    return "".join(parts).rstrip("\n") + "\n"


def _parse(path: str) -> ast.Module:
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read())


def _classes(module: ast.Module) -> Iterator[ast.ClassDef]:
    return (
        node
        for node in module.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )


def _functions(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    return (
        child
        for child in node.body
        if isinstance(child, ast.FunctionDef) and not child.name.startswith("_")
    )


def _spec(node: ast.ClassDef) -> Iterator[str]:
    yield f"## {node.name}\n\n{_markdown(ast.get_docstring(node) or '')}\n"
    for hook in _functions(node):
        yield f"### `{hook.name}`\n\n```python\n{_signature(hook)}\n```\n\n"
        yield "*Optional.*\n\n" if hook.name in OPTIONAL else ""
        yield _markdown(ast.get_docstring(hook) or "") + "\n"


def _value(node: ast.ClassDef) -> Iterator[str]:
    yield f"#### `{node.name}`\n\n{_markdown(ast.get_docstring(node) or '')}\n"
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    methods = [f"{_signature(method)}: ..." for method in _functions(node)]
    lines = [ast.unparse(field) for field in fields] + methods
    if lines:
        yield "```python\n" + "\n".join(lines) + "\n```\n\n"


def _signature(function: ast.FunctionDef) -> str:
    """`name(argument: type) -> type`, without self."""
    arguments = function.args
    arguments.args = [one for one in arguments.args if one.arg != "self"]
    returns = ast.unparse(function.returns) if function.returns else "None"
    line = f"{function.name}({ast.unparse(arguments)}) -> {returns}"
    if len(line) <= _WIDTH:
        return line
    inner = "".join(f"    {ast.unparse(one)},\n" for one in arguments.args)
    return f"{function.name}(\n{inner}) -> {returns}"


def _markdown(docstring: str) -> str:
    """Turn the sections `Args:` and `Raises:` into lists; the rest stays as it is."""
    lines: list[str] = []
    section = False
    for line in docstring.splitlines():
        if line in ("Args:", "Raises:", "Attributes:"):
            lines += [f"{line.rstrip(':')}:", ""]
            section = True
        elif section and line.startswith("    ") and not line.startswith("     "):
            name, colon, text = line.strip().partition(": ")
            lines.append(f"- `{name}`: {text}" if colon else f"- {name}")
        elif section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            section = False
            lines.append(line)
    return "\n".join(lines) + "\n"
