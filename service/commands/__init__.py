"""Every change, one file a noun; perform.py is the one write path."""
