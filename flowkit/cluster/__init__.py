"""The only package that knows Dask: plugins for scheduler and workers, the driver's link to them, the embedded cluster."""
