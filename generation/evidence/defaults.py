"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answer_defaults, which prints this file.
Learned from 384 questions of selqa train (Apache License 2.0), 266 with evidence;
cross-validated AUROC 0.998 (topic), 0.944 (evidence), 0.950 (with the judge).
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

SENTENCES_BIAS = -7.5387
SENTENCES: Terms = {
    "coverage": (-0.5563, 0.0957, 0.1641),
    "coverage_to_best": (0.688, 0.2689, 0.3943),
    "coverage_beyond_title": (0.8431, 0.0653, 0.1332),
    "grams": (0.3383, 0.0687, 0.0944),
    "cosine": (0.6548, 0.2287, 0.1436),
    "cosine_standing": (0.0113, 0.0, 0.6473),
    "length": (-0.2597, 3.0694, 0.5091),
    "numbers": (0.0522, 0.3211, 0.5246),
    "document_rank": (-1.2801, 0.9032, 0.5769),
    "title_coverage": (0.6065, 0.0906, 0.1649),
}
TOPIC_BIAS = 1.3407
TOPIC: Terms = {
    "dense_best": (1.5064, 0.363, 0.2052),
    "dense_mean": (1.454, 0.2187, 0.0944),
    "lexical_best": (0.9048, 0.2807, 0.1991),
    "coverage_first": (1.2987, 0.394, 0.3642),
}
EVIDENCE_BIAS = 1.7092
EVIDENCE: Terms = {
    "dense_best": (0.1963, 0.5373, 0.148),
    "dense_gap_2": (-0.0487, 0.1266, 0.108),
    "dense_gap_5": (0.3472, 0.2327, 0.1316),
    "sentence_cosine": (0.9113, 0.6181, 0.164),
    "sentence_cosine_2": (-0.2363, 0.4984, 0.1416),
    "lexical_best": (0.0054, 0.4366, 0.1652),
    "lexical_gap": (0.4541, 0.1776, 0.1467),
    "coverage_first": (0.4511, 0.6977, 0.262),
    "sentence_coverage": (0.331, 0.6265, 0.2493),
    "grams_best": (0.4513, 0.5113, 0.1858),
    "words": (-0.2008, 1.7644, 0.3428),
    "score_gap": (0.4289, 0.2404, 0.1705),
}
JUDGED_SENTENCES_BIAS = -7.2875
JUDGED_SENTENCES: Terms = {
    "coverage": (-0.4232, 0.0957, 0.1641),
    "coverage_to_best": (0.6508, 0.2689, 0.3943),
    "coverage_beyond_title": (0.5443, 0.0653, 0.1332),
    "grams": (0.2908, 0.0687, 0.0944),
    "cosine": (0.2946, 0.2287, 0.1436),
    "cosine_standing": (0.0634, 0.0, 0.6473),
    "length": (-0.1838, 3.0694, 0.5091),
    "numbers": (0.0963, 0.3211, 0.5246),
    "document_rank": (-1.3406, 0.9032, 0.5769),
    "title_coverage": (0.2518, 0.0906, 0.1649),
    "judge": (0.6375, -3.9153, 1.8639),
}
JUDGED_EVIDENCE_BIAS = 1.8109
JUDGED_EVIDENCE: Terms = {
    "dense_best": (0.1618, 0.5373, 0.148),
    "dense_gap_2": (-0.0258, 0.1266, 0.108),
    "dense_gap_5": (0.3059, 0.2327, 0.1316),
    "sentence_cosine": (0.7059, 0.6181, 0.164),
    "sentence_cosine_2": (-0.2032, 0.4984, 0.1416),
    "lexical_best": (-0.0081, 0.4366, 0.1652),
    "lexical_gap": (0.3961, 0.1776, 0.1467),
    "coverage_first": (0.3312, 0.6977, 0.262),
    "sentence_coverage": (0.2156, 0.6265, 0.2493),
    "grams_best": (0.3897, 0.5113, 0.1858),
    "words": (-0.1949, 1.7644, 0.3428),
    "score_gap": (0.3534, 0.2404, 0.1705),
    "judge_best": (0.8059, 0.573, 3.4091),
    "judge_second": (-0.0536, -2.3119, 2.5681),
}
# Questions with lower probabilities are refused. The first threshold refuses 2% of the training
# questions. With the second, 74% are answered, 10% of these without evidence; with the
# last, 73% and 8% (cross-validated).
TOPIC_THRESHOLD = 0.34
EVIDENCE_THRESHOLD = 0.39
JUDGED_EVIDENCE_THRESHOLD = 0.41
