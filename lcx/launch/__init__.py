"""The command line, and the only place where the packages are put together."""
