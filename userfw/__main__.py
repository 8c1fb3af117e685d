"""`python -m userfw` is `userfw`."""

import sys

from userfw.cli.main import main

sys.exit(main())
