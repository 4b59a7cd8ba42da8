"""What outsiders see: the models of API answers, and of webhook bodies, which are the same."""
