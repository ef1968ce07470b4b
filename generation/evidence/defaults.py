"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answer_defaults, which prints this file.
Learned from 809 questions of scifact train, 505 with evidence;
cross-validated AUROC 0.999 (topic), 0.842 (evidence).
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

SENTENCES_BIAS = -4.5459
SENTENCES: Terms = {
    "coverage": (-0.0728, 0.1683, 0.1711),
    "coverage_to_best": (0.4444, 0.4391, 0.376),
    "coverage_beyond_title": (0.227, 0.0669, 0.1102),
    "grams": (0.28, 0.1161, 0.1164),
    "cosine": (0.2389, 0.423, 0.1395),
    "cosine_standing": (-0.0155, 0.0, 0.9143),
    "length": (0.2842, 3.0901, 0.6256),
    "numbers": (0.1878, 0.6296, 0.7998),
    "finding": (0.3274, 0.3507, 0.4609),
    "purpose": (-0.6331, 0.0953, 0.2716),
    "document_rank": (-1.2633, 0.8899, 0.5809),
    "title_coverage": (0.2816, 0.2393, 0.1828),
}
TOPIC_BIAS = 1.4675
TOPIC: Terms = {
    "dense_best": (1.6891, 0.4752, 0.2024),
    "dense_mean": (1.172, 0.3731, 0.1462),
    "lexical_best": (1.4027, 0.2599, 0.1835),
    "coverage_first": (1.8683, 0.3583, 0.3189),
}
EVIDENCE_BIAS = 0.8207
EVIDENCE: Terms = {
    "dense_best": (0.118, 0.6544, 0.1152),
    "dense_gap_2": (0.0531, 0.0779, 0.0743),
    "dense_gap_5": (0.1854, 0.148, 0.0863),
    "sentence_cosine": (0.5124, 0.694, 0.12),
    "sentence_cosine_2": (0.0109, 0.625, 0.112),
    "lexical_best": (-0.3311, 0.4115, 0.1404),
    "lexical_gap": (0.3352, 0.1049, 0.1054),
    "coverage_first": (0.6285, 0.6327, 0.2184),
    "sentence_coverage": (0.1847, 0.5219, 0.1855),
    "grams_best": (0.4812, 0.5412, 0.1626),
    "words": (-0.1692, 2.2587, 0.3077),
    "score_gap": (0.1262, 0.1478, 0.1212),
}
# Questions with lower probabilities are refused. The first threshold refuses 1% of the training
# questions. With the second, 85% are answered, 30% of these without evidence
# (cross-validated).
TOPIC_THRESHOLD = 0.24
EVIDENCE_THRESHOLD = 0.26
