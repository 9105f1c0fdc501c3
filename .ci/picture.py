"""The picture of a report on the first screen of README: python .ci/picture.py RUN [FILE]

RUN is the folder of a finished run; FILE is docs/report.png. Needs Chromium.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from chromium import binary  # noqa: E402

SIZE = (1280, 560)


def main() -> int:
    run = Path(sys.argv[1]).resolve()
    file = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "docs" / "report.png").resolve()
    browser = binary()
    if browser is None:
        print("there is no Chromium on this machine; apt-get install chromium", file=sys.stderr)
        return 1
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    size = f"--window-size={SIZE[0]},{SIZE[1]}"
    done = subprocess.run(
        [browser, *options, size, f"--screenshot={file}", (run / "report.html").as_uri()], capture_output=True
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
