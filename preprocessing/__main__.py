"""``python -m preprocessing STAGE CONFIG.yaml [key.path=value ...]``: one stage, without torch."""

import sys

from preprocessing.console import main

if __name__ == "__main__":
    sys.exit(main())
