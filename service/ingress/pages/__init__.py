"""What people see in a browser: pages rendered here, without a script."""
