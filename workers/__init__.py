"""Door 2: what happens without being asked: the clock, deliveries, mails, upkeep."""
