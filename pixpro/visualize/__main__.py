"""`python -m pixpro.visualize pairs IMAGE...`: pictures of pairs and of what a checkpoint makes of them."""

import sys

from pixpro.visualize.command import main

sys.exit(main())
