"""The shuffle: one file with its index per map attempt, written, served and read in map order."""
