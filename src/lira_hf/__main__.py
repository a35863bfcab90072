"""`python -m lira_hf` is `lira-hf`."""

from lira_hf.cli import main

main()
