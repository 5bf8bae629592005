"""One file a public cohort: what its label sheet means."""
