"""``python -m bench.check PLUGIN``."""

import sys

from bench.check.command import main

sys.exit(main())
