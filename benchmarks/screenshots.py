"""Screenshots of a report page for README: first screen, light and dark.

    make screenshots

or ``python -m benchmarks.screenshots demo/run``. Chromium must be installed.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image

from benchmarks.chromium import Chromium
from mgc.api.runs import report

IMAGES = Path(__file__).parents[1] / "docs" / "images"
WIDTH_PX, HEIGHT_PX = 1200, 900
N_COLOURS = 256


def main() -> None:
    """Write ``report-light.png`` and ``report-dark.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="evaluated run folder")
    parser.add_argument("--output", type=Path, default=IMAGES, help="folder of the images")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        sys.exit("screenshots need Chromium: not found on PATH. Install Chromium.")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        page = report(arguments.run, output=Path(folder) / "report.html")
        browser = Chromium(program, Path(folder) / "profile")
        try:
            for scheme in ("light", "dark"):
                tab = browser.open(page, width=WIDTH_PX, height=HEIGHT_PX, dark=scheme == "dark")
                path = arguments.output / f"report-{scheme}.png"
                path.write_bytes(compress(tab.screenshot(whole_page=False)))
                print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
        finally:
            browser.close()


def compress(png: bytes) -> bytes:
    """Return a PNG with a palette of `N_COLOURS` colours, the best for its pixels."""
    image = Image.open(io.BytesIO(png)).convert("RGB").quantize(N_COLOURS, method=Image.Quantize.MEDIANCUT)
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
