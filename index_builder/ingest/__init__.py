"""The durable document queue: the ingest service accepts documents, Redis stores them, workers
process them.
"""
