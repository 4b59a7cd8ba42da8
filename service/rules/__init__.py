"""Everything that the service may say and decide, without any I/O: stdlib only, no clock."""
