"""``python -m bench.contact_sheet --out FILE.png``; the code is in bench/cli/contact_sheet.py."""

import sys

from bench.system.start import started

if __name__ == "__main__":
    with started("bench.contact_sheet", "loading torch"):
        from bench.cli.contact_sheet import main

        sys.exit(main())
