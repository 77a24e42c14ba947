"""Where input comes from and output goes to."""
