"""What a run would take, and what is in a data set, before days are spent on it."""
