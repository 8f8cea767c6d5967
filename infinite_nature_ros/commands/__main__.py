"""``python -m infinite_nature_ros.commands`` is ``infinite-nature``."""

import sys

from infinite_nature_ros.commands import main

if __name__ == '__main__':
    sys.exit(main())
