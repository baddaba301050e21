"""``python -m bench.adapt RUN_DIR FOLDER``; the code is in bench/cli/adapt.py."""

import sys

from bench.system.start import started

if __name__ == "__main__":
    with started("bench.adapt", "loading torch"):
        from bench.cli.adapt import main

        sys.exit(main())
