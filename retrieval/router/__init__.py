"""The retrieval service and its gRPC servicers."""
