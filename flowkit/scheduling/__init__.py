"""The scheduler core: plain state machines, stimuli in, actions out. No clock, no thread, no IO, no Dask."""
