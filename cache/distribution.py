"""The distribution that installs mgc: its name, its version, and the command that installs an extra."""

from __future__ import annotations

NAME = "mgc-music"
"""Name on the package index. The import package and the command are called ``mgc``."""

__version__ = "0.1.0"


def install_command(extra: str) -> str:
    """Return the command that installs an optional part of mgc.

    >>> install_command("report")
    "pip install 'mgc-music[report]'"
    """
    return f"pip install '{NAME}[{extra}]'"


def explain_missing_extra(extra: str, module: str) -> str:
    """Return a sentence on an optional part that is not installed, and the command that installs it.

    >>> explain_missing_extra("report", "jinja2")
    "the extra 'report' is not installed (no module 'jinja2'). Run: pip install 'mgc-music[report]'"
    """
    return f"the extra {extra!r} is not installed (no module {module!r}). Run: {install_command(extra)}"
