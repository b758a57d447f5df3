"""What a reader wants to know of a method of positions before choosing it: an ``ABOUT`` in every method's module.

``lcx report --positions`` prints all of them as a table.
"""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """One row of the table of methods. ``trained`` says what weights the method asks for:

    'none'     it works with weights trained without it, untuned
    'tune'     such weights need a fine-tuning to reach the longer context
    'scratch'  the weights must be trained with it from the start
    """

    paper: str  # 'arXiv:2309.00071, Peng et al. 2023'
    what: str  # in one line
    trained: str
    cost: str  # beyond plain RoPE: 'none', 'O(T S) bias per layer', ...
    hf: str = ''  # its rope_type in Hugging Face configs; '': none
