"""Containers as processes: starts what compose.yaml and Kubernetes manifests say, without images."""
