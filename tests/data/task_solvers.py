"""Answers to the synthetic string tasks, each computed another way than the task does."""

import re

import numpy as np


def reduced(expression: str) -> int:
    """The value of an arithmetic expression, modulo 5: rewritten until a number is left."""
    text = expression
    while not re.fullmatch(r'-?\d+', text):
        for pattern in (
            r'\((-?\d+)\)',
            r'(?<![\d)])(-?\d+)\*(-?\d+)',
            r'(?<![\d*)])(-?\d+)([+-])(-?\d+)(?!\d|\*)',
        ):
            found = re.search(pattern, text)
            if found:
                break
        numbers = [int(g) for g in found.groups() if g not in '+-']
        if '*' in found[0]:
            value = numbers[0] * numbers[1]
        elif len(numbers) == 1:
            value = numbers[0]
        else:
            value = numbers[0] + numbers[1] * (1 if found[2] == '+' else -1)
        text = f'{text[: found.start()]}{value % 5}{text[found.end() :]}'
    return int(text) % 5


def solve(question: str) -> str:
    """The only digit with which both sides agree."""
    left, _, right = question.partition('=')
    (found,) = (digit for digit in '01234' if reduced(left.replace('x', digit)) == int(right))
    return found


def walk(question: str) -> str:
    """Step by step on the circle."""
    place = 0
    for step in question:
        place = {'0': (0, 1, 2, 3, 4), '1': (1, 2, 3, 4, 0), '2': (4, 0, 1, 2, 3)}[step][place]
    return str(place)


def left_on_stack(question: str) -> str:
    """From the end: what is pushed stays unless a later pop takes it."""
    pops, left = 0, ''
    for character in reversed(question):
        if character == '2':
            pops += 1
        elif pops:
            pops -= 1
        else:
            left += {'3': '0', '4': '1'}.get(character, character)
    return left


def gap(question: str) -> str:
    """What the other half has there."""
    half = question.rstrip('.')
    pairs = zip(half[: len(half) // 2], half[len(half) // 2 :], strict=True)
    ((a, b),) = ((a, b) for a, b in pairs if a != b)
    return a if b == '_' else b


def carried(columns: list[int]) -> str:
    """The digits of a number with these sums in its columns, least first."""
    digits, carry = [], 0
    for column in [*columns, *[0] * 64]:
        carry, digit = divmod(carry + column, 2)
        digits.append(str(digit))
    assert carry == 0
    return ''.join(digits).rstrip('0')


def added(question: str) -> str:
    """Column by column."""
    first, second = ([int(d) for d in number] for number in question.split('+'))
    size = max(len(first), len(second))
    return carried([sum(n[i] for n in (first, second) if i < len(n)) for i in range(size)])


def multiplied(question: str) -> str:
    """As in school: products of digits, summed by column."""
    first, second = ([int(d) for d in number] for number in question.split('*'))
    return carried(np.convolve(first, second).tolist())


def root(question: str) -> str:
    """Digit by digit: the largest number whose square is not too large."""
    number, found = sum(2**i for i, d in enumerate(reversed(question)) if d == '1'), 0
    size = (len(question) + 1) // 2
    for i in reversed(range(size)):
        if (found + 2**i) ** 2 <= number:
            found += 2**i
    return ''.join('1' if found >> i & 1 else '0' for i in reversed(range(size)))


def listed(question: str) -> str:
    """The innermost list becomes its value, until none is left."""
    functions = {'X': np.max, 'N': np.min, 'D': np.median, 'S': lambda v: np.sum(v) % 10}
    while len(question) > 1:
        question = re.sub(
            r'([XNDS])(\d+)\]', lambda m: str(int(functions[m[1]]([int(d) for d in m[2]]))), question
        )
    return question


SOLVERS = {
    'copy': lambda question: question,
    'bucket_sort': lambda question: ''.join(c * question.count(c) for c in '01234'),
    'even_pairs': lambda question: str(sum(question[i : i + 2] in ('01', '10') for i in range(len(question))) % 2),
    'modular_arithmetic': lambda question: str(reduced(question)),
    'parity_check': lambda question: str(sum(map(int, question)) & 1),
    'cycle_navigation': walk,
    'stack_manipulation': left_on_stack,
    'reverse_string': lambda question: ''.join(reversed(question)),
    'modular_arithmetic_brackets': lambda question: str(reduced(question)),
    'solve_equation': solve,
    'duplicate_string': lambda question: 2 * question,
    'missing_duplicate': gap,
    'odds_first': lambda question: ''.join(
        question[i] for i in sorted(range(len(question)), key=lambda i: i % 2)
    ),
    'binary_addition': added,
    'binary_multiplication': multiplied,
    'compute_sqrt': root,
    'induction_heads': lambda question: question.split('>')[1][0],
    'selective_copy': lambda question: question.replace('.', ''),
    'listops': listed,
}  # fmt: skip
