"""Image recognition as a job: losses × seeds on one image set."""

from __future__ import annotations

from wsi_ncmi.jobs.images.config import ImageJobConfig
from wsi_ncmi.jobs.images.job import load_image_config, run_images
from wsi_ncmi.jobs.images.summary import text_table

__all__ = ["ImageJobConfig", "load_image_config", "run_images", "text_table"]
