"""Adapt our docstrings to mkdocstrings: the text after the colon of a parameter is its description.

numpydoc reads it as the type, which our signatures already contain.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`~?([^`]+)`")
NAMED = (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)


class Docstrings(griffe.Extension):
    """Correct every docstring after the package is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _correct(pkg)


def _correct(owner: griffe.Object) -> None:
    if owner.docstring is not None:
        for section in owner.docstring.parsed:
            if section.kind is griffe.DocstringSectionKind.text:
                section.value = _without_roles(section.value)
            elif section.kind in NAMED:
                for item in section.value:
                    text = f"{item.annotation or ''} {item.description}"
                    item.description, item.annotation = _without_roles(text.strip()), _annotation(owner, item.name)
            elif isinstance(section.value, list):
                for item in section.value:
                    if isinstance(item, griffe.DocstringElement):  # examples are plain tuples
                        item.description = _without_roles(item.description)
                        if str(item.annotation).startswith("("):  # several errors on one line
                            item.annotation = str(item.annotation).strip("()")
    for member in owner.members.values():
        if not member.is_alias:
            _correct(member)


def _annotation(owner: griffe.Object, name: str) -> str | griffe.Expr | None:
    """Return the type of a parameter or an attribute from the code."""
    if isinstance(owner, griffe.Function) and name in owner.parameters:
        return owner.parameters[name].annotation
    member = owner.members.get(name)
    if isinstance(member, griffe.Attribute):
        return member.annotation
    return None


def _without_roles(text: str) -> str:
    return ROLE.sub(lambda found: f"`{found[1]}`", text)
