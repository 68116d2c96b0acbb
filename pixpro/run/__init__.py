"""What keeps a run of days alive and accounts for it: saving, resuming, stopping, faults, records."""
