"""`python -m credit`."""

from credit.cli.main import main

if __name__ == "__main__":
    main()
