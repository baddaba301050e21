"""``python -m bench.verify FOLDER|BUNDLE.zip``; the code is in bench/cli/verify.py."""

import sys

from bench.cli.verify import main

if __name__ == "__main__":
    sys.exit(main())
