"""Run the command line: `python -m datasources`."""

from datasources.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
