"""``python -m bench.contact_sheet --out FILE.png``; the code is in bench/cli/contact_sheet.py."""

import sys

from bench.cli.contact_sheet import main

if __name__ == "__main__":
    sys.exit(main())
