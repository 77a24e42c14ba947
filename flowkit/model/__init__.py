"""The words all sides share: ids, job specs, task reports, metrics, events. Plain data, no behaviour, no IO."""
