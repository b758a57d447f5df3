"""RULER's tasks answered from their prompts alone, and the data that they need here.

Every solver matches the whole prompt against the published wording (NVIDIA/RULER, scripts/data/synthetic/constants.py,
Apache-2.0; read at commits of 2024 and 2025), so that it is also the check of that wording.
"""

import collections
import json
import re

import numpy as np

NOISE = 'The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.'


def niah(kind, key, many, line):
    """``line`` matches all lines of a haystack that are not needles; None for text, which is a single line."""
    value = {
        'number': r'[1-9]\d{6}',
        'uuid': r'[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}',
    }
    value = value | {'word': r'[a-z]+-[a-z]+'}
    needle = f'One of the special magic {kind}s for ({value[key]}) is: ({value[kind]})\\.'
    if many:
        whole = (
            f'Some special magic {kind}s are hidden within the following text. Make sure to memorize it. I will quiz '
            f'you about the {kind}s afterwards.\n(.*)\nWhat are all the special magic {kind}s for (.*) mentioned in '
            f'the provided text? The special magic {kind}s for (.*) mentioned in the provided text are'
        )
    else:
        whole = (
            f'A special magic {kind} is hidden within the following text. Make sure to memorize it. I will quiz you '
            f'about the {kind} afterwards.\n(.*)\nWhat is the special magic {kind} for (.*) mentioned in the provided '
            f'text? The special magic {kind} for (.*) mentioned in the provided text is'
        )

    def solve(prompt):
        context, query, again = matched(whole, prompt)
        assert query == again
        if line is None:
            assert '\n' not in context
        else:
            rest = [row for row in context.split('\n') if not re.fullmatch(needle, row)]
            assert set(rest) == ({line} if line else set())
        keys = query.replace(', and ', ', ').split(', ')
        found = re.findall(needle, context)
        return [value for key in keys for name, value in found if name == key]

    return solve


def vt(prompt):
    begin = 'Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n'
    whole = begin + (
        '(.*)\nQuestion: Find all variables that are assigned the value (.*) in the text above. Answer: According to '
        'the chain(s) of variable assignment in the text above, (.*) variables are assigned the value (.*), they are: '
    )
    none, example, last = prompt.split(begin)
    assert none == ''
    shown, answer = re.fullmatch(r'(.*, they are: ) ([A-Z ]+)\n\n', begin + example, re.DOTALL).groups()
    assert answer.split() == chain(*matched(whole, shown), letters=3)
    return chain(*matched(whole, begin + last), letters=5)


def chain(context, value, count, again, letters):
    assert value == again
    found = []
    for line in context.split('\n'):
        if line != NOISE:
            name, source = re.fullmatch(r'VAR ([A-Z]+) = (\d{5}|VAR [A-Z]+ )', line).groups()
            assert len(name) == letters
            if source.strip() in (value, *(f'VAR {known}' for known in found)):
                found.append(name)
    assert len(found) == int(count)
    return found


def cwe(prompt):
    begin = (
        'Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones '
        'that appear most often.\n'
    )
    whole = begin + (
        '(.*)\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear '
        'most often in the list are:'
    )
    none, example, last = prompt.split(begin)
    assert none == ''
    shown, answer = re.fullmatch('(.*list are:) (1\\..*)\n', begin + example, re.DOTALL).groups()
    assert set(numbered(answer)) == set(common(*matched(whole, shown)))
    return common(*matched(whole, begin + last))


def numbered(text):
    numbers, words = zip(*re.findall(r'(\d+)\. ([a-z-]+)', text))
    assert [int(n) for n in numbers] == list(range(1, len(words) + 1))
    assert text == ' '.join(f'{n}. {word}' for n, word in zip(numbers, words))
    return words


def common(text):
    counts = collections.Counter(numbered(text)).most_common()
    assert counts[9][1] > counts[10][1] and len({count for _, count in counts}) == 2
    return [word for word, _ in counts[:10]]


def fwe(prompt):
    (context,) = matched(
        'Read the following coded text and track the frequency of each coded word. Find the three most frequently '
        "appeared coded words. (.*)\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are "
        'the three most frequently appeared words in the above coded text? Answer: According to the coded text above, '
        'the three most frequently appeared words are:',
        prompt,
    )
    counts = collections.Counter(context.split(' '))
    assert all(re.fullmatch(r'[a-z]{6}|\.\.\.', word) for word in counts)
    del counts['...']
    ranked = counts.most_common()
    assert ranked[2][1] > ranked[3][1]
    return [word for word, _ in ranked[:3]]


def qa(prompt):
    context, country = matched(
        'Answer the question based on the given documents. Only give me the answer and do not output any other words.'
        '\n\nThe following are given documents.\n\n(.*)\n\n'
        'Answer the question based on the given documents. Only give me the answer and do not output any other words.'
        '\n\nQuestion: What is the capital of (.*)? Answer:',
        prompt,
    )
    documents = re.split(r'(?:^|\n\n)Document (\d+):\n', context)[1:]
    assert [int(n) for n in documents[::2]] == list(range(1, len(documents) // 2 + 1))
    return re.findall(rf'The capital of {country} is (\w+)\.', context)


def matched(published, prompt):
    """The parts of ``prompt`` at (.*) in the published wording."""
    pattern = re.escape(published).replace(re.escape('(.*)'), '(.*)')
    return re.fullmatch(pattern, prompt, re.DOTALL).groups()


SOLVERS = {
    'niah_single_1': niah('number', 'word', False, NOISE),
    'niah_single_2': niah('number', 'word', False, None),
    'niah_single_3': niah('uuid', 'word', False, None),
    'niah_multikey_1': niah('number', 'word', False, None),
    'niah_multikey_2': niah('number', 'word', False, ''),
    'niah_multikey_3': niah('uuid', 'uuid', False, ''),
    'niah_multivalue': niah('number', 'word', True, None),
    'niah_multiquery': niah('number', 'word', True, None),
    'vt': vt,
    'cwe': cwe,
    'fwe': fwe,
    'qa_1': qa,
    'qa_2': qa,
}


def story(seed=0, sentences=1500):
    """Sentences of three to nine words, some of them with 'Mr. Ames' or an initial in it."""
    random = np.random.default_rng(seed)
    words = ['the', 'cat', 'sat', 'there', 'mat', 'Mr. Ames', 'and', 'J. Fox', 'walked', 'other,', 'tree']
    return '\n'.join(
        ' '.join([f'Story{seed}', *random.choice(words, random.integers(2, 8)), str(i), 'times.'])
        for i in range(sentences)
    )


def capital(i):
    return f'The capital of Country{i} is Town{i}.'


def write_squad(path, articles=4, paragraphs=20):
    """Every paragraph states the capitals of two countries; one question cannot be answered."""
    data = []
    for a in range(articles):
        entries = []
        for p in range(paragraphs):
            i = 2 * (a * paragraphs + p)
            asked = {'question': f'What is the capital of Country{i}?', 'answers': [{'text': f'Town{i}'}] * 3}
            hard = {'question': 'Why?', 'answers': [], 'is_impossible': True}
            entries.append(
                {
                    'context': f'Article {a}, paragraph {p}. {capital(i)} {capital(i + 1)}',
                    'qas': [hard, asked | {'is_impossible': False}],
                }
            )
        data.append({'title': str(a), 'paragraphs': entries})
    path.write_text(json.dumps({'version': 'v2.0', 'data': data}))
    return str(path)


def write_hotpotqa(path, questions=20):
    data = [
        {
            'question': f'What is the capital of Country{10 * q + 3}?',
            'answer': f'Town{10 * q + 3}',
            'context': [[f'Title {i}', [f'Number {i}. ', capital(i)]] for i in range(10 * q, 10 * q + 10)],
        }
        for q in range(questions)
    ]
    path.write_text(json.dumps(data))
    return str(path)
