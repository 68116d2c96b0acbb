"""Settings of the test run: two test processes share the cores, so each computes on one thread."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
