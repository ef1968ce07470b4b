"""Containers as processes: runs what compose.yaml and Kubernetes manifests say, without images."""
