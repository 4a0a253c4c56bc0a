"""The commands for people, by what they are about.  cli.py loads the module of the command that is asked for."""

QUICK = ("create", "exec", "kill", "pause", "ps", "restart", "rm", "run", "start", "stop", "unpause", "wait")
"""Commands that quick.py or ps.py can do without click."""
VARIABLE = "_WARREN_COMPLETE"
"""Set when a shell asks how a word goes on (completion.py)."""
