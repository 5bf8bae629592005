"""Environment of all HTML templates."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from wsi_ncmi.core.values import printable_lines


def page_environment(package: str, *, trim: bool = True) -> Environment:
    """The environment of a package's templates: what they are given comes from elsewhere and is escaped.

    Args:
        package: Its import name.
        trim: Leave out the blanks and line breaks of template tags.
    """
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=trim,
        lstrip_blocks=trim,
    )


def _shown(value: Any) -> Any:
    # Markup, a subclass, is ours: style and scripts.
    return printable_lines(value) if type(value) is str else value
