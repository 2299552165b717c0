"""`python -m nightloom.cli` is `nightloom`."""

from nightloom.cli import main

if __name__ == "__main__":
    main()
