"""The release gate, and replays of requests on two snapshots."""
