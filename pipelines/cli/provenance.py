"""x."""
COMMANDS = ()
