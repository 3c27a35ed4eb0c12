"""python -m penstock.cli: the command line where the project is not installed, as in the images."""

from __future__ import annotations

from penstock.cli.main import main

if __name__ == "__main__":
    main(prog_name="penstock")
