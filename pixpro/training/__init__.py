"""From batches to steps: engine, optimizer, schedules, processes, BatchNorm across them."""
