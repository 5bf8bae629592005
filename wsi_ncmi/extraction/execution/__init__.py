"""Running an extraction over processes and nodes."""
