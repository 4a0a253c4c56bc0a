"""The commands for people, by what they are about.  cli.py loads the module of the command that is asked for."""
