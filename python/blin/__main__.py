"""``python -m blin`` is the ``blin`` command of that very Python."""

from blin.cli import main

if __name__ == "__main__":
    main()
