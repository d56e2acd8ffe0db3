"""Entry point of the ``mgc`` command. It lies outside the package ``mgc``, which another distribution can shadow.

The distribution ``mgc`` on PyPI is another project (independence tests) with the same import name as mgc-music.
"""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path

ENTRY_POINTS = ("mgc_music:main", "mgc.cli:main")
"""Entry points of this project. The second one is that of versions whose distribution was called mgc."""
REINSTALL = "`pip install --force-reinstall --no-deps mgc-music` (or the path of a clone)"


def main() -> None:
    """Run the command line of mgc-music, or report the distribution or folder that shadows it."""
    problem = conflict()
    if problem:
        print(f"error: {problem}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    from mgc.cli import main as run

    run()


def conflict() -> str | None:
    """Return one line on another distribution or folder called mgc, with what to do; None if there is none."""
    for other in metadata.distributions(name="mgc"):
        if not any(point.value in ENTRY_POINTS for point in other.entry_points):
            return (
                f"the distribution mgc {other.version} is another project with the same import name as mgc-music: "
                f"{other.locate_file('mgc')}. Run `pip uninstall mgc`, then {REINSTALL}."
            )
    package = util.find_spec("mgc")
    folders = list(package.submodule_search_locations or ()) if package else []
    if not any((Path(folder) / "cache" / "distribution.py").is_file() for folder in folders):
        found = (
            f"`import mgc` loads another package than mgc-music: {folders[0]}"
            if folders
            else "the package mgc is missing"
        )
        return f"{found}. Remove what shadows it from PYTHONPATH or uninstall it, then run {REINSTALL}."
    return None
