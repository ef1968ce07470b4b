"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answers.fit_defaults, which prints this file.
Learned from 2583 questions about 29 collections; see docs/quality.md.
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

SENTENCES_BIAS = -7.298
SENTENCES: Terms = {
    "coverage": (-0.2675, 0.0407, 0.115),
    "coverage_to_best": (0.2002, 0.115, 0.2927),
    "coverage_beyond_title": (0.5382, 0.0329, 0.1022),
    "title_coverage": (0.4049, 0.0486, 0.1251),
    "grams": (0.1884, 0.0271, 0.0522),
    "chunk_rank": (-1.355, 1.7659, 0.8161),
    "document_rank": (-0.2809, 0.9482, 0.5694),
    "numbers": (0.0573, 0.5306, 0.6354),
    "length": (0.3834, 2.5648, 0.5823),
    "names_missing": (-0.141, 0.2688, 0.4404),
    "identifiers_missing": (-0.8026, 0.0409, 0.1976),
    "cosine": (0.0498, 0.1067, 0.1314),
    "cosine_standing": (0.2275, -0.0019, 0.5912),
}
EVIDENCE_BIAS = -0.0985
EVIDENCE: Terms = {
    "dense_best": (0.4604, 0.3661, 0.1654),
    "dense_gap_2": (-0.2315, 0.1067, 0.0998),
    "dense_gap_5": (0.1865, 0.2157, 0.1207),
    "sentence_cosine": (1.2117, 0.4483, 0.1988),
    "sentence_cosine_2": (-0.1228, 0.3567, 0.1732),
    "coverage_first": (0.4746, 0.4562, 0.3113),
    "sentence_coverage": (0.2145, 0.3927, 0.2561),
    "grams_best": (-0.5902, 0.2873, 0.1543),
    "words": (-0.1143, 1.7448, 0.2571),
}
JUDGED_SENTENCES_BIAS = -3.7762
JUDGED_SENTENCES: Terms = {
    "answer": (1.6618, -2.4907, 1.9532),
    "coverage": (0.8184, 0.2511, 0.2657),
    "names_missing": (0.0949, 0.309, 0.4301),
    "identifiers_missing": (-0.1373, 0.0134, 0.1145),
}
JUDGED_EVIDENCE_BIAS = -0.0693
JUDGED_EVIDENCE: Terms = {
    "answer_best": (1.3096, 0.0841, 2.0117),
    "names_missing": (-0.2815, 0.1869, 0.3582),
    "identifiers_missing": (-0.2025, 0.0087, 0.0924),
}
TOPIC_BIAS = 2.4514
TOPIC: Terms = {
    "dense_top": (1.8357, 0.268, 0.1268),
    "sentence_coverage": (1.0917, 0.3927, 0.2561),
    "heaviest_held": (0.1047, 0.5648, 0.33),
    "grams_best": (0.7309, 0.2873, 0.1543),
}
# Questions with lower probabilities are off topic, or not answered. At the others, 10% of
# the unanswerable questions of our folders are answered (cross-validated by collection).
EVIDENCE_THRESHOLD = 0.821
JUDGED_EVIDENCE_THRESHOLD = 0.557
TOPIC_THRESHOLD = 0.4
# What an answer needs beyond the threshold, in logits, by strictness; and from where on the closest
# passages are shown instead.
STRICTNESS_LOGITS = {"strict": 0.41, "balanced": 0.0, "lenient": -0.62}
NOT_SURE_LOGITS = -1.48
