"""The retrieval service, its gRPC servicers, and their status reports."""
