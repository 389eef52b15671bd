"""``python -m avbench`` is ``avbench``."""

from avbench.cli import main

main()
