"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answer_defaults, which prints this file.
Learned from 384 questions of selqa train (Apache License 2.0), 266 with evidence;
cross-validated AUROC 0.996 (topic), 0.943 (evidence), 0.948 (with the judge).
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

SENTENCES_BIAS = -7.6015
SENTENCES: Terms = {
    "coverage": (-0.5562, 0.0951, 0.1641),
    "coverage_to_best": (0.6778, 0.2665, 0.395),
    "coverage_beyond_title": (0.8453, 0.0647, 0.1331),
    "grams": (0.3413, 0.0686, 0.0942),
    "cosine": (0.6363, 0.2376, 0.1412),
    "cosine_standing": (0.0237, 0.0, 0.6688),
    "length": (-0.2494, 3.0617, 0.5075),
    "numbers": (0.047, 0.3201, 0.5242),
    "document_rank": (-1.332, 0.9043, 0.5769),
    "title_coverage": (0.6061, 0.0906, 0.165),
}
TOPIC_BIAS = 0.8426
TOPIC: Terms = {
    "dense_top": (2.2027, 0.3035, 0.1466),
    "lexical_best": (0.8667, 0.2819, 0.1994),
    "sentence_coverage": (0.83, 0.3798, 0.3139),
    "heaviest_held": (0.6926, 0.5617, 0.3753),
}
EVIDENCE_BIAS = 1.7052
EVIDENCE: Terms = {
    "dense_best": (0.1619, 0.5372, 0.1483),
    "dense_gap_2": (0.1243, 0.1267, 0.1079),
    "dense_gap_5": (0.3708, 0.2324, 0.1321),
    "sentence_cosine": (0.9462, 0.6186, 0.1636),
    "sentence_cosine_2": (-0.1994, 0.5013, 0.1411),
    "lexical_best": (0.04, 0.4391, 0.1636),
    "lexical_gap": (0.632, 0.179, 0.1473),
    "coverage_first": (0.4598, 0.6964, 0.2622),
    "sentence_coverage": (0.3067, 0.6268, 0.2499),
    "grams_best": (0.4135, 0.5113, 0.1858),
    "words": (-0.1936, 1.7495, 0.3374),
    "score_gap": (0.0426, 0.6584, 4.3159),
}
JUDGED_SENTENCES_BIAS = -7.3288
JUDGED_SENTENCES: Terms = {
    "coverage": (-0.3467, 0.0951, 0.1641),
    "coverage_to_best": (0.6012, 0.2665, 0.395),
    "coverage_beyond_title": (0.4968, 0.0647, 0.1331),
    "grams": (0.2506, 0.0686, 0.0942),
    "cosine": (0.1673, 0.3119, 0.145),
    "cosine_standing": (0.095, 0.0, 0.5601),
    "length": (-0.1607, 3.0617, 0.5075),
    "numbers": (-0.0768, 0.3201, 0.5242),
    "document_rank": (-1.3585, 0.9043, 0.5769),
    "title_coverage": (0.2504, 0.0906, 0.165),
    "judge": (0.7686, -3.7444, 1.584),
    "kind": (0.3507, 0.6006, 0.3438),
}
JUDGED_EVIDENCE_BIAS = 0.2011
JUDGED_EVIDENCE: Terms = {
    "judge_best": (0.9545, -0.1849, 2.6928),
    "judge_second": (0.1695, -2.637, 2.0188),
    "judge_kind": (0.4915, 0.8043, 0.2874),
    "judge_coverage": (0.0223, 0.6096, 0.2682),
    "names_missing": (-0.1871, 0.1147, 0.2936),
    "sentence_cosine": (0.2972, 0.5871, 0.1622),
    "coverage_first": (0.2443, 0.6533, 0.2623),
    "grams_best": (0.3247, 0.47, 0.184),
    "asks_method": (0.0743, 0.0642, 0.2451),
    "sentence_coverage": (0.4844, 0.5721, 0.2473),
    "dense_best": (0.4291, 0.5126, 0.1576),
    "words": (0.0418, 1.7022, 0.3005),
}
# Questions with lower probabilities are refused. The first threshold refuses 6% of the training
# questions. With the second, 75% are answered, 10% of these without evidence
# (cross-validated). The last is the lowest, in steps of 0.02, at which 0.85 of the unanswerable
# questions of benchmarks/data/near_topic (train) are refused. The judged model of NO_EVIDENCE was
# learned from these, too, and from benchmarks/data/how_to (train).
TOPIC_THRESHOLD = 0.52
EVIDENCE_THRESHOLD = 0.42
JUDGED_EVIDENCE_THRESHOLD = 0.62
