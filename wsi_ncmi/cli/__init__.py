"""The command line, one file per verb; heavy packages are imported only when a verb runs."""
