"""Rows as the data sets on the Hub have them."""

from typing import Any

DAPO_PROMPT = "Solve the following problem.\n\nWhat is 6 times 7?\n\nEnd with a line Answer: $Answer."


def dapo_row(question: str, answer: str) -> dict[str, Any]:
    """A row in the columns of open-r1/DAPO-Math-17k-Processed."""
    return {
        "prompt": question,
        "solution": answer,
        "data_source": "math_dapo",
        "source_prompt": [{"content": DAPO_PROMPT.replace("What is 6 times 7?", question), "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": "0"},
    }


def aime_row(problem: str, answer: str) -> dict[str, Any]:
    """A row in the columns of HuggingFaceH4/aime_2024; math-ai/aime25 has three of them."""
    return {"id": 60, "problem": problem, "solution": "", "answer": answer, "url": "", "year": "2024"}
