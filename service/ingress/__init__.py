"""Door 1: what apps and people ask for over HTTP."""
