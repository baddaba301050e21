"""``python -m bench.speed``."""

import sys

from bench.system.start import started

with started("bench.speed", "loading torch"):
    from bench.speed.command import main, with_worker_environment

    with_worker_environment(sys.argv[1:])
    sys.exit(main())
