"""``python -m ditbench``."""

from ditbench.cli import main

main()
