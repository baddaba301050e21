"""The extension of the documentation is imported as Sphinx imports it."""

import sys

from places import REPOSITORY

sys.path.append(str(REPOSITORY / "docs" / "_ext"))
