"""Who may hold how much, and who must spill."""
