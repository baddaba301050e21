"""``python -m bench.check PLUGIN``."""

import sys

from bench.system.start import started

with started("bench.check", "loading torch"):
    from bench.check.command import main

    sys.exit(main())
