"""Money from outside: one small file per provider, behind the one Protocol of `provider.py`."""
