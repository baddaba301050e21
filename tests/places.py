"""Where things are."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PLUGINS = REPOSITORY / "tests" / "plugins"
TOY = PLUGINS / "toy_data.py"
