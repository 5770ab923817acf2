"""`python -m hpcresume`: the same as the `hpcresume` command."""

from hpcresume.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
