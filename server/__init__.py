import sys
from pathlib import Path

# The generated stubs are a package root of their own: internal services install them without the server.
sys.path.insert(0, str(Path(__file__).parent.parent / "gen"))
