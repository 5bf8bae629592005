"""``python -m wsi_ncmi`` is the command ``wsi-ncmi``."""

import sys

from wsi_ncmi.core.extras import MissingPackageError


def main() -> None:
    """Entry point of the console script; a base install has it, and no packages for it."""
    try:
        from wsi_ncmi.cli.app import main as run
    except MissingPackageError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    run()


if __name__ == "__main__":
    main()
