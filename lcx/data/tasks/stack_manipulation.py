"""Stack manipulation: what is on a stack, from its top, after all has been pushed and popped?

    0110422=110        (0110 from its bottom, push 1, pop, pop)
    110222=            (nothing is left)
    10343=01001        (10, push 0, push 1, push 0)

The stack is zeros and ones; 2 pops, 3 pushes 0, 4 pushes 1; nothing happens where an empty stack is popped. A
deterministic context-free language, one of the 15 tasks of Delétang et al. 2023, arXiv:2207.02098: the stack has any
size that leaves an action, each as probable as another. Where the paper's answer has a terminator and zeros to fill
``size + 1`` places, a row has its end.
"""

from __future__ import annotations

import numpy as np

from lcx.data.tasks.api import StringTask


class StackManipulation(StringTask):
    """See the module."""

    name = 'stack_manipulation'
    symbols = '01234'

    def draw(self, random: np.random.Generator, size: int) -> tuple[str, str]:
        """A stack and actions, and the stack that is left; of size 1 there is no action."""
        depth = int(random.integers(1, max(size, 2)))
        stack = ''.join(random.choice(list('01'), depth))
        actions = ''.join(random.choice(list('234'), size - depth))
        left = list(stack)
        for action in actions:
            if action != '2':
                left.append('0' if action == '3' else '1')
            elif left:
                left.pop()
        return stack + actions, ''.join(reversed(left))
