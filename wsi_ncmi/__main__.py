"""``python -m wsi_ncmi`` is the command ``wsi-ncmi``."""

from wsi_ncmi.cli.app import main

if __name__ == "__main__":
    main()
