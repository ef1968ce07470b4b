"""Tests of what deploy/ has: alerts, dashboards, images, manifests; and of compose.yaml."""
