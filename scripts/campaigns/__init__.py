"""Campaigns: long, seeded, random trials with real processes, each of which promises something that must never break.

    .venv/backend/bin/python scripts/campaign.py kills --seed 1 --count 200

A campaign is a module with a function ``run(seed, count) -> Outcome``, where ``count`` bounds its work. It works in a
temporary folder and removes it with everything that it started. `tests/campaigns` runs short forms.
"""
