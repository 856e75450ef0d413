"""``python -m metacl.cli``."""

from metacl.cli import main

if __name__ == "__main__":
    main()
