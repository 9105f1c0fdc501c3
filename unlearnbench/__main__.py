"""`python -m unlearnbench` is the command line."""

from __future__ import annotations

from unlearnbench.cli import main

if __name__ == "__main__":
    main()
