"""The command line: embedded servers, `amana up`, and a verb for everything an operator does."""
