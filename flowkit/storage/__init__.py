"""What executors keep: memory grants, cached blocks, shuffle files, content, serializers, codecs."""
