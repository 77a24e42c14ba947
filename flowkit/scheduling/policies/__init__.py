"""Orders in which task sets are offered slots."""
