"""The handlers of the API: five lines each."""
