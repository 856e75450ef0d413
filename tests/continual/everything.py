"""Strategies that are listed together."""

EVERYTHING = [
    {"name": "replay", "memory": 10, "ratio": 0.5},
    {"name": "ewc", "strength": 1.0, "examples": 4, "step": "proximal"},
    {"name": "si", "strength": 0.1},
    {"name": "lwf"},
    {"name": "der_plus_plus", "memory": 8},
    {"name": "a_gem", "per_experience": 4, "batch": 6},
    {"name": "self_distillation"},
    {"name": "hardening", "radius": 0.05},
    {"name": "o_lora", "rank": 1},
    {"name": "la_maml", "memory": 8, "arrive": 3, "step_size": 0.01, "step_size_learning_rate": 1e-4},
]
"""Every strategy whose memory outlives an experience and that fits beside the others."""
