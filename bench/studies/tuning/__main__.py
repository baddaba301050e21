"""``python -m bench.studies.tuning OUT``."""

import sys

from bench.system.start import started

with started("bench.studies.tuning", "loading torch"):
    from bench.studies.tuning.preset import main

    sys.exit(main())
