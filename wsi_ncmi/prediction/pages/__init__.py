"""HTML pages about the predictions of new slides: one a slide, one of all."""
