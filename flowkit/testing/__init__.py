"""For tests, ours and users': the inline runner, the simulated cluster, checks of event order."""
