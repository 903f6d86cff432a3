"""Make ``python -m nuclix.engine.cli`` the same as ``nuclix``."""

import sys

from nuclix.engine.cli.main import main

sys.exit(main())
