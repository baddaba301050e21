"""``python -m bench.adapt RUN_DIR FOLDER``; the code is in bench/cli/adapt.py."""

import sys

from bench.cli.adapt import main

if __name__ == "__main__":
    sys.exit(main())
