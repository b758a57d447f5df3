"""``python -m lcx VERB`` is ``lcx VERB``."""

from lcx.launch.cli import main

main()
