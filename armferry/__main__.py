"""`python -m armferry`."""

import sys

from armferry.cli.main import main

sys.exit(main())
