"""Makes the helpers importable for ``pytest`` without ``python -m``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
