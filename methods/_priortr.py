"""Constants of PriorTR, and what its release does."""

SMALL = 1e-10
"""Added to shares of attention, as released."""
TOO_SHORT = "PriorTR needs a question after a null token; {} tokens follow the image: put the question after it"
RELEASES = {
    "test_releases_llm.test_priortr_compares_the_mean_of_the_question": "No null token is inserted: the first token "
    "after the image is taken for one. Compared with it is by default not the last row (`query=last`) but the mean of "
    "all after the image, its own among them.",
    "test_releases_llm.test_the_rows_of_priortrs_copies_choose_differently": "Its five copies take different rows, and "
    "keep other tokens: LLaVA's, InternVL's (`rows=internvl`), and one for Qwen2-VL, Qwen3-VL and Video-LLaVA "
    "(`rows=qwen`).",
    "test_golden_priortr.test_priortr_needs_a_question_after_the_null_token": "Where no text follows the null token "
    "all scores are 0, and the choice is arbitrary.",
}
