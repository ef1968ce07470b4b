"""The document queue: a service accepts documents, Redis stores them, workers process them."""
