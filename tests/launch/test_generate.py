"""``lcx generate``: what the library generates, on stdout as it comes; and how it ends, whatever ends it."""

import io
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from configs import base
from lcx.config import Options
from lcx.data.tokenizers import Bytes
from lcx.errors import Interrupted
from lcx.generate import Sampling, generate
from lcx.generate.loop import Plan
from lcx.launch import origin, writing
from tests.launch.test_cli import ROOT
from tests.models.tiny import changed
from tests.running import CONFIGS, lcx, on_corpus

PROMPT = 'the key of the sun is the'
SUMMARY = re.compile(
    r'prompt: (\d+) tokens, [\d.]+ s, [\d.]+ tokens/s; new: (\d+) tokens(?:, [\d.]+ s, [\d.]+ tokens/s)?; '
    r'cache: (\w+), ([\d.]+) MB, ([\d.]+) kB per token\n'
)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A byte model with RoPE at length 64."""
    directory = tmp_path_factory.mktemp('generate')
    words = [f'--config={CONFIGS}/base.py:smoke', f'--workdir={directory}/rope', '--config.eval.run=()']
    assert lcx('train', *words, *on_corpus(directory)) == 0
    return directory / 'rope'


@pytest.fixture(scope='module')
def expected(trained):
    """``expected(prompt, **options)``: the text that the library generates."""
    found = origin.find(trained)
    params = found.params(found.model)

    def text(prompt, new=16, **options):
        ids = Bytes().encode(prompt)
        return Bytes().decode(
            generate(found.model, params, [ids], new=new, chunk=64, eos=Bytes.eos, **options)[0]
        )

    return text


@pytest.fixture
def write(trained, capfd):
    """``write(*words)``: exit code, stdout and stderr."""

    def run(*words):
        code = lcx('generate', f'--init={trained}', *words)
        return code, *capfd.readouterr()

    return run


def given(monkeypatch, content: bytes, terminal=False):
    """stdin that holds ``content``."""
    stdin = io.TextIOWrapper(io.BytesIO(content))
    stdin.isatty = lambda: terminal
    monkeypatch.setattr(sys, 'stdin', stdin)


def test_it_writes_what_the_library_generates_and_a_summary(write, trained, expected):
    before = sorted(trained.rglob('*'))
    code, out, err = write(f'--prompt={PROMPT}', '--tokens=16')
    assert code == 0 and out == expected(PROMPT) and len(out) == 16
    prompt, new, cache, size, each = SUMMARY.fullmatch(err).groups()
    assert (prompt, new, cache) == ('25', '16', 'full')
    # 80 slots in two layers, with a key and a value of 16 numbers each, a position and a segment.
    assert float(size) == round(80 * (2 * 2 * 16 * 4 + 8) / 1e6, 1) and 0.26 <= float(each) <= 0.27
    assert sorted(trained.rglob('*')) == before


def test_the_prompt_may_be_a_file_or_come_on_stdin(write, expected, tmp_path, monkeypatch):
    text = expected('déjà vu\n')
    (tmp_path / 'prompt.txt').write_text('déjà vu\n', encoding='utf-8')
    assert write(f'--prompt_file={tmp_path}/prompt.txt', '--tokens=16')[:2] == (0, text)
    given(monkeypatch, 'déjà vu\n'.encode())
    assert write('--tokens=16', '--echo')[:2] == (0, 'déjà vu\n' + text)


def test_fields_of_the_configuration(write, expected):
    cache = {'name': 'streaming', 'window': 8, 'sinks': 2}
    words = ['--tokens=16', f'--prompt={PROMPT}', *(f'--config.cache.{k}={v}' for k, v in cache.items())]
    draw = ('--config.generate.temperature=2.0', '--config.generate.top_k=50', '--config.seed=3')
    code, out, err = write(*words, *draw)
    text = expected(PROMPT, cache=cache, sampling=Sampling(2.0, 50), seed=3)
    assert (code, out) == (0, text) and SUMMARY.fullmatch(err)[3] == 'streaming'


def test_another_policy_starts_without_the_options_of_the_run():
    for words, window in ((['--config.cache.name=full'], None), (['--config.cache.sinks=2'], 8)):
        config = base.get_config()
        config.cache = base.cache('streaming', window=8)
        assert origin.start_anew(config, words).cache.window == window


def test_plain_rope_beyond_the_trained_length_is_warned_of(write):
    code, out, err = write('--prompt=' + 'sun ' * 16, '--tokens=16')
    assert code == 0 and len(out) == 16
    assert err.startswith('lcx: warning: 64 + 16 tokens are more than the 64 that the model was trained at')


BAD = {
    'no prompt': ((), ['--prompt=TEXT, --prompt_file=FILE']),
    'two prompts': (('--prompt=a', '--prompt_file=b'), ['--prompt and --prompt_file: give one']),
    'empty prompt': (('--prompt=',), ['--prompt: empty']),
    'missing file': (('--prompt_file={here}/promt.txt',), ["promt.txt' is not a file. Did you mean", 'prompt.txt']),
    'empty file': (('--prompt_file={here}/empty.txt',), ['--prompt_file: empty']),
    'other bytes': (('--prompt_file={here}/latin.txt',), ['--prompt_file: not UTF-8: byte 0xe9 at 1']),
    'no tokens': (('--prompt=a', '--tokens=0'), ['--tokens: 0 must be at least 1']),
    'unknown policy': (
        ('--prompt=a', '--config.cache.name=streming'),
        ["cache.name: unknown 'streming'. Did you mean 'streaming'?"],
    ),
    'option of another policy': (
        ('--prompt=a', '--config.cache.window=3'),
        ["cache.window (of 'full'): unknown 'window'", 'tokens'],
    ),
    'prompt beyond the cache': (
        ('--prompt=' + 'sun ' * 20, '--config.cache.tokens=64', '--tokens=8'),
        ['cache.tokens: 64 cannot hold a prompt of 128 and 8 new tokens; give 136', 'streaming'],
    ),
    'temperature': (('--prompt=a', '--config.generate.temperature=-1.0'), ['generate.temperature: -1.0']),
    'chunk': (('--prompt=a', '--config.generate.chunk=0'), ['generate.chunk: 0 must be greater than 0']),
    'word without a flag': (('--prompt=a', 'sun'), ["'sun' is not a flag"]),
}  # fmt: skip


@pytest.mark.parametrize('name', BAD)
def test_a_wrong_command_line_is_explained(write, tmp_path, monkeypatch, name):
    (tmp_path / 'prompt.txt').write_text('a')
    (tmp_path / 'empty.txt').write_text('')
    (tmp_path / 'latin.txt').write_bytes('né'.encode('latin-1'))
    given(monkeypatch, b'', terminal=True)
    code, out, err = write(*(word.replace('{here}', str(tmp_path)) for word in BAD[name][0]))
    assert code == 2 and not out and err.startswith('lcx: ')
    assert all(part in err for part in BAD[name][1]), err


def test_where_parameters_come_from_is_asked(capfd):
    assert lcx('generate', '--prompt=a') == 2
    assert '--init is required' in capfd.readouterr().err


@pytest.fixture
def endless(trained):
    """A process that writes without end, of which the first byte has been read."""
    words = ['generate', f'--init={trained}', f'--prompt={PROMPT}', '--tokens=200000']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'stdin': subprocess.DEVNULL}

    def heard() -> None:
        """Tests that run in the background of a shell ignore Ctrl-C, and so would their children."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, '-m', 'lcx', *words]
    with subprocess.Popen(command, cwd=ROOT, preexec_fn=heard, **pipes) as child:
        assert child.stdout.read(1)
        yield child
        child.kill()


def test_ctrl_c_ends_the_text_with_its_summary(endless):
    endless.send_signal(signal.SIGINT)
    _, err = endless.communicate(timeout=60)
    lines = err.decode().splitlines(keepends=True)
    new = SUMMARY.fullmatch(lines[-2])[2]
    assert endless.returncode == 130 and lines[-1] == f'lcx: interrupted after {new} new tokens.\n'


def test_a_reader_who_has_seen_enough_ends_it_quietly(endless):
    endless.stdout.close()
    assert 'Traceback' not in endless.stderr.read().decode() and endless.wait(timeout=60) == 141


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def steps(monkeypatch):
    """``steps(pieces)``: stdout, and stderr as a terminal, for steps that give these bytes without a model."""
    plan = Plan.of(changed(layers=1, vocab=257), [np.arange(9)], new=9, chunk=4)

    def run(pieces):
        def stream(plan, params, prompt, parts, told):
            for i in (1, 2):
                told(i, 2)
            for piece in pieces:
                if isinstance(piece, type):
                    raise piece
                yield np.frombuffer(piece, np.uint8)

        out, err = io.StringIO(), Terminal()
        monkeypatch.setattr(writing, 'stream', stream)
        monkeypatch.setattr(writing, 'compiled', lambda *_: None)
        monkeypatch.setattr(sys, 'stdout', out)
        monkeypatch.setattr(sys, 'stderr', err)
        try:
            writing.write(plan, {}, Bytes(), np.arange(9), 0)
        except Interrupted as error:
            err.write(f'{error}\n')
        return out.getvalue(), err.getvalue()

    return run


def test_characters_are_written_when_they_are_whole(steps):
    pieces = [bytes([byte]) for byte in 'é€'.encode()] + [b'\xff', b'a', b'\xe2', b'\x82']
    assert steps(pieces)[0] == 'é€\ufffda'


def test_a_terminal_shows_progress_and_clears_it(steps):
    _, err = steps([b'a'])
    assert err.startswith('\r\x1b[Kcompiling ...\r\x1b[Kreading the prompt: chunk 1 of 2\r\x1b[K')
    last = err.rpartition('\r\x1b[K')[2]
    assert last.startswith('prompt: 9 tokens, ') and '; new: 1 tokens; cache: full, ' in last


def test_an_interrupted_prompt_has_a_summary_too(steps):
    out, err = steps([KeyboardInterrupt])
    assert out == '' and '; new: 0 tokens; ' in err and err.endswith('interrupted after 0 new tokens.\n')


@pytest.mark.parametrize(
    ('kind', 'cache', 'prompt', 'expected'),
    [
        ({}, {'name': 'full'}, 15, True),
        ({}, {'name': 'full'}, 14, False),
        ({}, {'name': 'streaming', 'window': 8}, 15, False),
        ({'rule': ({'name': 'causal'}, {'name': 'window', 'size': 8})}, {'name': 'full'}, 15, False),
        ({'rule': ({'name': 'causal'}, {'name': 'window', 'size': 30})}, {'name': 'full'}, 15, True),
        ({'position': {'name': 'alibi'}}, {'name': 'full'}, 15, False),
    ],
)
def test_when_a_text_is_too_long(kind, cache, prompt, expected):
    from lcx.models import LayerKind

    model = changed(kinds={'full': LayerKind(**kind)}, trained_length=20)
    plan = Plan.of(model, [np.arange(prompt)], new=6, cache=Options(cache), chunk=4)
    assert writing.too_long(plan, prompt) == expected
