"""A user study of finished edits: its page, the server that collects answers, and their analysis.

    python -m evaluation.study page RUNS... --output study/
    python -m evaluation.study serve study/
    python -m evaluation.study analyse study-answers.jsonl

A *rater* answers one *sheet*: a row of *trials*, each of them one source video and the edits that different *methods*
made of it for the same target prompt. The sheets are balanced, so a study has as many of them as it is to have raters.
What lies in the served folder names no method; the *key* beside it says which clip is whose.
"""
