"""``python -m bench.verify FOLDER|BUNDLE.zip``; the code is in bench/cli/verify.py."""

import sys

from bench.system.start import started

if __name__ == "__main__":
    with started("bench.verify", "loading torch"):
        from bench.cli.verify import main

        sys.exit(main())
