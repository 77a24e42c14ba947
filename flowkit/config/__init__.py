"""All settings: declared once (``config``), by rules of their own (``setting``), to begin with (``presets``), step by step (``builder``)."""

from flowkit.config.builder import ConfigBuilder
from flowkit.config.config import Config
from flowkit.config.presets import PRESETS
from flowkit.config.setting import ENVIRONMENT_PREFIX, MOST_ADDRESSES, POOL_FIELDS, settings_of

__all__ = ["ENVIRONMENT_PREFIX", "MOST_ADDRESSES", "POOL_FIELDS", "PRESETS", "Config", "ConfigBuilder", "settings_of"]
