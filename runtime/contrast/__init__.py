"""`warren contrast`: the same image as an ordinary process, as a container and as virtual machines, measured here."""
