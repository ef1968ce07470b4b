"""The default calibration, for collections without labels of their own.

Source: python -m benchmarks.answers.fit_defaults of commit 619a38b1, which printed this file.
Learned from 2583 questions about 29 collections; see docs/quality.md.
"""

from __future__ import annotations

from generation.evidence.logistic import Terms

SENTENCES_BIAS = -6.7502
SENTENCES: Terms = {
    "coverage": (-0.3782, 0.0703, 0.1495),
    "coverage_to_best": (0.4451, 0.1578, 0.3132),
    "coverage_beyond_title": (0.4685, 0.0439, 0.1134),
    "title_coverage": (0.2975, 0.0751, 0.149),
    "grams": (0.1401, 0.038, 0.0659),
    "chunk_rank": (-1.2411, 1.9203, 0.827),
    "document_rank": (-0.2617, 0.8091, 0.6052),
    "numbers": (0.2637, 0.4451, 0.6122),
    "length": (0.0847, 2.7103, 0.6218),
    "names_missing": (-0.1281, 0.2186, 0.4109),
    "identifiers_missing": (-0.2827, 0.0359, 0.1856),
    "cosine": (0.1262, 0.1427, 0.1458),
    "cosine_standing": (0.1666, -0.0019, 0.6545),
}
EVIDENCE_BIAS = 0.4358
EVIDENCE: Terms = {
    "dense_best": (0.379, 0.4136, 0.1616),
    "dense_gap_2": (0.0598, 0.1144, 0.1014),
    "dense_gap_5": (-0.0323, 0.2192, 0.1198),
    "sentence_cosine": (0.8438, 0.4943, 0.1817),
    "sentence_cosine_2": (-0.0145, 0.4024, 0.1678),
    "coverage_first": (0.2117, 0.5286, 0.3091),
    "sentence_coverage": (0.2203, 0.4492, 0.2502),
    "grams_best": (-0.5529, 0.3477, 0.1789),
    "words": (-0.0364, 1.7648, 0.2769),
}
JUDGED_SENTENCES_BIAS = -4.047
JUDGED_SENTENCES: Terms = {
    "answer": (1.965, -2.7851, 2.3033),
    "coverage": (0.725, 0.2519, 0.2666),
    "names_missing": (0.0494, 0.3069, 0.4289),
    "identifiers_missing": (-0.1006, 0.0095, 0.0972),
}
JUDGED_EVIDENCE_BIAS = -0.1235
JUDGED_EVIDENCE: Terms = {
    "answer_best": (1.448, 0.2765, 2.1253),
    "names_missing": (-0.3052, 0.1893, 0.3603),
    "identifiers_missing": (-0.1746, 0.0075, 0.086),
}
TOPIC_BIAS = 4.8889
TOPIC: Terms = {
    "dense_top": (2.5192, 0.3214, 0.1426),
    "sentence_coverage": (0.9954, 0.4492, 0.2502),
    "heaviest_held": (0.2664, 0.6521, 0.3092),
    "grams_best": (0.9, 0.3477, 0.1789),
}
# Questions with lower probabilities are off topic, or not answered. At the others, 15% of
# the unanswerable questions of our folders are answered (cross-validated by collection).
EVIDENCE_THRESHOLD = 0.792
JUDGED_EVIDENCE_THRESHOLD = 0.555
TOPIC_THRESHOLD = 0.696
# What an answer needs beyond the threshold, in logits, by strictness; and from where on the closest
# passages are shown instead.
STRICTNESS_LOGITS = {"strict": 0.52, "balanced": 0.0, "lenient": -0.31}
NOT_SURE_LOGITS = -2.11
# The same for questions that are off topic.
OFF_TOPIC_LOGITS = -1.59
