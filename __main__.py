"""``python -m mgc`` is ``mgc``."""

from .cli import main

if __name__ == "__main__":
    main()
