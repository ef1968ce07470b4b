"""Readers of office formats, books and mail, mostly by way of HTML."""
