"""Search of settings on the inner validation parts with a stated budget, and training with what it found."""

from wsi_ncmi.jobs.search.job import SearchRequest, search

__all__ = ["SearchRequest", "search"]
