"""Cards and loading scripts of the data sets that are published."""
