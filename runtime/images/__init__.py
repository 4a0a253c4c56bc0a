"""Images: what they are called, where they come from, how they are kept and how a container sees them.

    tar.py        one parser of layers' archives, which refuses what is ambiguous
    unpack.py     a layer's entries as files below one directory, whoever made it

Names and contents are an attacker's: bytes, never decoded, never resolved outside of the layer's own directory.
"""
