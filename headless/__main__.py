"""`python -m headless` is the `headless` command."""

import sys

from headless.cli.main import main

sys.exit(main())
