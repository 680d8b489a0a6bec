"""``python -m ganlib``."""

from ganlib.cli import main

if __name__ == "__main__":
    main()
