"""`python -m pixpro.images check DIR`: a look at a data set before a run."""

import sys

from pixpro.plan.check import main

sys.exit(main())
