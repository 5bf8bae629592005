"""The weight-free H&E descriptor: stain statistics, texture and nuclear measures of a tile."""
