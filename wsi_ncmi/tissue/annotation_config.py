"""Which class names of annotations mean what to the tissue mask."""

from __future__ import annotations

from wsi_ncmi.core.config import configclass

__all__ = ["AnnotationConfig"]


@configclass
class AnnotationConfig:
    """Class names by what they do; case and blanks around a name don't count, other classes do nothing.

    They act in this order: ``tissue``, ``include``, ``add``, ``exclude``. The outline that we write has the
    class ``tissue``, so an edited one replaces the automatic mask; outlines without a class do the same, as
    in TRIDENT. A lesion (``Tumor``, CAMELYON's ``_0``, ``_1``, ``_2``, ``metastases``) changes nothing, nor
    do the outlines of artefacts.

    Attributes:
        tissue: Where there is such an area, tissue is what lies in these areas and nowhere else.
        include: Where there is such an area, only tissue inside these areas counts.
        add: These areas are tissue too.
        exclude: Nothing in these areas is tissue.
    """

    tissue: tuple[str, ...] = ("tissue", "")
    include: tuple[str, ...] = ("include", "region*", "roi", "region of interest")
    add: tuple[str, ...] = ("add",)
    exclude: tuple[str, ...] = ("exclude", "ignore*", "ignore", "artifact", "artefact")

    def role_of(self, name: str) -> str:
        """``tissue``, ``include``, ``add`` or ``exclude``, or ``other``."""
        plain = name.strip().casefold()
        for role in ("tissue", "include", "add", "exclude"):
            if plain in {known.strip().casefold() for known in getattr(self, role)}:
                return role
        return "other"
