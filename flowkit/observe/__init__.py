"""Looking on: the listener bus and what hears it. A dead observer cannot hurt a task."""
