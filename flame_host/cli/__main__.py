"""``python -m flame_host.cli``: the operator's command where its script is not on the path."""

from flame_host.cli import main

main()
