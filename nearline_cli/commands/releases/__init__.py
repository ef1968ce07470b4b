"""Commands about snapshots: list, export, judge and promote them."""
