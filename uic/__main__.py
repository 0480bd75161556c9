"""`python -m uic`: the command line."""

from uic.jobs.cli import main

main()
