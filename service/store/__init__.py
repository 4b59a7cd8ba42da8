"""Every line of SQL, one file a noun."""
