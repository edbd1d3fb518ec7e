"""The `opd` command. Thin: arguments in, library calls, one line of error out."""
