"""`python -m mgc`."""

from mgc.cli import main

main()
