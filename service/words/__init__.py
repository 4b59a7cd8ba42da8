"""What people read: mails and pages, in en, fr and ar."""
