"""Terms that a page explains where they stand, in one sentence each; docs/glossary.md says the same."""

TERMS = {
    "recall@20": "How often the item that came next is among the first 20 of the ranking.",
    "MRR@20": "Mean reciprocal rank: 1 where the item that came next is ranked first, 1/2 where it is "
    "second, and so on; 0 below rank 20.",
    "NDCG@10": "Normalised discounted cumulative gain: 1 where the item that came next is ranked first, "
    "0.63 where it is second, falling slowly; 0 below rank 10.",
    "position": "One place in a user's sequence, where the ranking has to find the item that came next.",
    "gate": "The rule that promotes a new version only if it ranks no worse than the champion and every "
    "baseline on the same events.",
    "champion": "The model version that is serving now.",
    "arm": "Which model a visitor gets: the champion arm gets the champion, the small control arm the "
    "version before it, for comparison.",
    "uplift": "The click-through of the champion arm minus that of the control arm, in the same hours.",
    "click-through": "The share of answers with at least one click.",
    "conversion": "An event such as a purchase, of the types in [attribution]. It counts for the answer "
    "that it names, or for answers that showed its item before.",
    "minimum detectable effect": "The least difference that an experiment of this size finds with a "
    "probability of 80%.",
    "coverage": "The share of the catalogue that is recommended to anyone in the evaluation.",
    "fallback": "What fills an answer where the model has nothing more to recommend, such as popular "
    "items.",
    "Gini coefficient": "How unevenly impressions are shared among the items: 0 is evenly, 1 is all on "
    "one item.",
}
