"""Words that made-up documents are drawn from."""

WORDS = (
    "the", "a", "wind", "rain", "sun", "sea", "hill", "road",
    "lamp", "night", "morning", "river", "stone", "bird", "house", "song",
)
