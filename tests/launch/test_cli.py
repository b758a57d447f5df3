"""The command line: what is wrong with it is said in a sentence, at once, before any device is touched."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

# Runs the command lines given as JSON and prints the exit code, the words on stderr and stdout, the seconds and
# whether JAX has looked for devices, of each.
RUNNER = """
import contextlib, io, json, sys, time
from jax._src import xla_bridge
from lcx.launch import cli
fates = []
for words in json.loads(sys.argv[1]):
    out, err, since = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(['lcx', *words])
    took = time.monotonic() - since
    fates.append([code, err.getvalue(), out.getvalue(), took, xla_bridge.backends_are_initialized()])
print(json.dumps(fates))
"""


class Fate(NamedTuple):
    """How a command line ended."""

    code: int
    stderr: str
    stdout: str
    seconds: float
    devices: bool


# A configuration file whose argument is a field of the layer kind and a value: FILE:rule=casual.
KIND = """
from configs import base
def get_config(arg):
    config = base.get_config('smoke')
    name, _, value = arg.partition('=')
    kind = next(iter(config.model.kinds))
    config.model.kinds[kind][name] = ({'name': value},) if name == 'rule' else value
    return config
"""

SMOKE = ('train', '--config=configs/base.py:smoke')
NEW = (*SMOKE, '--workdir={here}/new')
TEXT = (*NEW, '--config.data.source=text')
SAVED = (*SMOKE, '--workdir={here}/saved')

# name -> (command line, parts of the message). {here} is a directory of the tests' own.
BAD = {
    'unknown verb': (('trian',), ["verb: unknown 'trian'", "Did you mean 'train'?"]),
    'unknown flag': ((*SMOKE, '--wrkdir=x'), ["unknown '--wrkdir'", "Did you mean '--workdir'?"]),
    'word without a flag': ((*NEW, 'smoke'), ["'smoke' is not a flag", '--name=value']),
    'no workdir': (SMOKE, ['--workdir is required', '--workdir=runs/']),
    'no config': (('train', '--workdir={here}/new'), ['--config is required', 'configs/base.py']),
    'missing config file': (
        ('train', '--config=configs/bse.py', '--workdir={here}/new'),
        ["'configs/bse.py' is not a file", "Did you mean 'configs/base.py'?"],
    ),
    'unknown argument of a config': (
        ('train', '--config=configs/base.py:smok', '--workdir={here}/new'),
        ["'smok' is unknown", 'smoke'],
    ),
    'unknown field': (
        (*NEW, '--config.optimizer.learning_rat=1'),
        ['optimizer.learning_rat=1', "Did you mean 'learning_rate'?"],
    ),
    'unknown field of a stage': (
        (*NEW, '--config.stages[0].lenght=3'),
        ['stages[0].lenght=3', "Did you mean 'length'?"],
    ),
    'stage that is not there': ((*NEW, '--config.stages[3].steps=3'), ['stages[3].steps=3', '1 entries']),
    'text for an int': ((*NEW, '--config.seed=abc'), ["seed: 'abc'", 'int']),
    'text for a float': ((*NEW, '--config.optimizer.clip=high'), ["optimizer.clip: 'high'", 'float']),
    'text for a bool': ((*NEW, '--config.log.tensorboard=maybe'), ["log.tensorboard: 'maybe'", 'bool']),
    'text for stages': ((*NEW, '--config.stages=abc'), ["'abc' is a str", 'stages']),
    'no stages': ((*NEW, '--config.stages=()'), ['stages: ()', 'at least one']),
    'unknown position method': (
        (*NEW, '--config.model.position.name=yarm'),
        ["model.position.name: unknown 'yarm'", "Did you mean 'yarn'?"],
    ),
    'option of another position method': (
        (*NEW, '--config.model.position.beta_fast=3.0'),
        ["model.position.beta_fast (of 'rope')", 'theta'],
    ),
    'factor below 1': (
        (*NEW, '--config.model.position.name=pi', '--config.model.position.factor=0.5'),
        ['model.position.factor: 0.5', 'at least 1'],
    ),
    'odd head size': ((*NEW, '--config.model.head_dim=15'), ['model.head_dim: 15 must be even']),
    'theta that is not positive': (
        (*NEW, '--config.model.position.theta=-1.0'),
        ['model.position.theta: -1.0', 'greater than 1'],
    ),
    'longrope lists of another head size': (
        (
            *NEW,
            '--config.model.position.name=longrope',
            '--config.model.position.short_factor=(1.0, 1.0)',
            '--config.model.position.long_factor=(1, 2.5, 3)',
        ),
        ['model.position.short_factor: 2 numbers; the 8 pairs need one each'],
    ),
    'original length beyond everything': (
        (*NEW, '--config.model.position.name=yarn', '--config.model.position.original_length=4096'),
        ['model.position.original_length: 4096 exceeds the length in use, 64', 'at most 64'],
    ),
    'factor below 1 of a stage': (
        (*NEW, '--config.stages[0].position.name=pi', '--config.stages[0].position.factor=0.5'),
        ['stages[0].position.factor: 0.5'],
    ),
    'more random positions than fp32 tells apart': (
        (*NEW, '--config.model.position.name=random_float', '--config.model.position.target_length=5000000'),
        ['model.position.target_length: 5000000 must be at most 4194304'],
    ),
    'searching factors of what is not a workdir': (
        ('search-factors', '--init={here}/nothere', '--workdir={here}/new', '--length=256'),
        ["'{here}/nothere' is neither a workdir with checkpoints"],
    ),
    'unknown preset': (
        (*NEW, '--config.model.preset=tinny'),
        ["model.preset: unknown 'tinny'", "Did you mean 'tiny'?"],
    ),
    'unknown dtype': (
        (*NEW, '--config.model.dtype=float23'),
        ["model.dtype: unknown 'float23'", "Did you mean 'float32'?"],
    ),
    'unknown rule': (
        ('train', '--config={here}/kind.py:rule=casual', '--workdir={here}/new'),
        ["unknown 'casual'", 'rule[0].name', "Did you mean 'causal'?"],
    ),
    'rule without its number': (
        ('train', '--config={here}/kind.py:rule=window', '--workdir={here}/new'),
        ["rule[0].size: 'window' needs it"],
    ),
    'unknown attention': (
        (*NEW, '--config.model.kinds.full.attention.name=dens'),
        ["attention.name: unknown 'dens'", "Did you mean 'dense'?"],
    ),
    'unknown layer kind': ((*NEW, "--config.model.pattern=('locl',)"), ["model.pattern: unknown 'locl'"]),
    'unknown packing': (
        (*NEW, '--config.data.packing=firstfit'),
        ["data.packing: unknown 'firstfit'", "Did you mean 'first_fit'?"],
    ),
    'unknown tokenizer': (
        (*NEW, '--config.data.tokenizer=byte'),
        ["data.tokenizer: unknown 'byte'", "Did you mean 'bytes'?"],
    ),
    'missing tokenizer': (
        (*NEW, '--config.data.tokenizer={here}/tokenizer.json'),
        ["data.tokenizer: '{here}/tokenizer.json' is not a file"],
    ),
    'unknown split': (
        (*NEW, '--config.eval.split=tset'),
        ["eval.split: unknown 'tset'", "Did you mean 'test'?"],
    ),
    'a split that the source has not': (
        (*NEW, '--config.eval.split=test'),
        ["eval.split: source 'stdlib' has no split 'test'", 'austen'],
    ),
    'data of nothing': (('data',), ['--config is required']),
    'data of an unknown source': (
        ('data', '--source=austn'),
        ["data.source: unknown 'austn'", "Did you mean 'austen'?"],
    ),
    'data of a task': (('data', '--source=task:copy'), ["data.source: 'task:copy' is a task"]),
    'data of a source and a config': (
        ('data', '--config=configs/base.py', '--source=austen'),
        ['--source goes with no --config', '--config.data.source=austen'],
    ),
    'data of a tokenizer alone': (('data', '--tokenizer=x.json'), ['--tokenizer goes with --source']),
    'unknown optimizer': (
        (*NEW, '--config.optimizer.name=adam'),
        ["optimizer.name: unknown 'adam'", "Did you mean 'adamw'?"],
    ),
    'unknown schedule': (
        (*NEW, '--config.optimizer.schedule=cosin'),
        ["optimizer.schedule: unknown 'cosin'", "Did you mean 'cosine'?"],
    ),
    'unknown evaluator': (
        (*NEW, "--config.eval.run=('perplexty',)"),
        ["eval.run: unknown 'perplexty'", "Did you mean 'perplexity'?"],
    ),
    'unknown source': (
        (*NEW, '--config.data.source=txt'),
        ["data.source: unknown 'txt'", "Did you mean 'text'?"],
    ),
    'source without files': (TEXT, ['data.files: empty']),
    'missing text file': (
        (*TEXT, "--config.data.files=('{here}/nothere.txt',)"),
        ["data.files: '{here}/nothere.txt' matches no file"],
    ),
    'kv_heads that do not divide heads': (
        (*NEW, '--config.model.heads=4', '--config.model.kv_heads=3'),
        ['model.kv_heads: 3', 'heads=4', 'nearest that does is 2'],
    ),
    'batch that accumulate does not divide': (
        (*NEW, '--config.optimizer.accumulate=3', '--config.stages[0].batch=8'),
        ['stages[0].batch: 8', 'optimizer.accumulate=3', 'nearest that is: 9'],
    ),
    'negative steps': ((*NEW, '--config.stages[0].steps=-5'), ['stages[0].steps: -5', 'greater than 0']),
    'negative seed': ((*NEW, '--config.seed=-1'), ['seed: -1', 'between 0 and']),
    'length that is not a power of two': (
        (*NEW, '--config.eval.lengths=(100,)'),
        ['eval.lengths: 100', 'nearest is 128'],
    ),
    'last beyond the shortest length': (
        (*NEW, '--config.eval.last=1000'),
        ['eval.last: 1000', 'shortest of lengths, 128'],
    ),
    'init_from that is not a workdir': (
        (*NEW, '--config.init_from={here}'),
        ["init_from: '{here}' is neither a workdir with checkpoints nor a Hugging Face directory"],
    ),
    'eval of what is not a workdir': (
        ('eval', '--workdir={here}/nothere'),
        ["'{here}/nothere' is neither a workdir with checkpoints"],
    ),
    'generate from what is not a workdir': (
        ('generate', '--init={here}/nothere', '--prompt=a'),
        ["init: '{here}/nothere' is neither a workdir with checkpoints"],
    ),
    'generate from nothing': (('generate', '--prompt=a'), ['--init is required']),
    'unknown cache policy': (
        (*NEW, '--config.cache.name=ful'),
        ["cache.name: unknown 'ful'", "Did you mean 'full'?"],
    ),
    'option of another cache policy': (
        (*NEW, '--config.cache.window=5'),
        ["cache.window (of 'full')", 'tokens'],
    ),
    'top_p above 1': ((*NEW, '--config.generate.top_p=1.5'), ['generate.top_p: 1.5 must be above 0']),
    'chunk of nothing': ((*NEW, '--config.generate.chunk=0'), ['generate.chunk: 0 must be greater than 0']),
    'eval without a workdir': (('eval',), ['--workdir is required']),
    'changed seed': ((*SAVED, '--config.seed=1'), ['seed: 0 -> 1', 'another --workdir']),
    'changed model': ((*SAVED, '--config.model.width=64'), ['model.width: 32 -> 64']),
    'changed data': ((*SAVED, '--config.data.packing=pad'), ['data.packing: "concat" -> "pad"']),
    'changed stage': ((*SAVED, '--config.stages[0].length=32'), ['stages[0].length: 64 -> 32']),
}

HELP = [
    (),
    ('--help',),
    ('train', '--help'),
    ('eval', '--help'),
    ('generate', '--help'),
    ('data', '--help'),
    ('report', '--help'),
    ('search-factors', '--help'),
]


@pytest.fixture(scope='module')
def here(tmp_path_factory):
    """A directory with KIND and with the workdir 'saved' of a smoke run that has only begun."""
    from configs import base
    from lcx.launch.experiment import values_of

    directory = tmp_path_factory.mktemp('cli')
    (directory / 'kind.py').write_text(KIND)
    (directory / 'saved').mkdir()
    (directory / 'saved' / 'config.json').write_text(json.dumps(values_of(base.get_config('smoke'))))
    return directory


@pytest.fixture(scope='module')
def fates(here):
    """What became of every command line of this file, all run in one process."""
    lines = [[word.replace('{here}', str(here)) for word in words] for words, _ in BAD.values()] + HELP
    command = [sys.executable, '-c', RUNNER, json.dumps(lines)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=True)
    return dict(zip([*BAD, *HELP], (Fate(*fate) for fate in json.loads(done.stdout)), strict=True))


@pytest.mark.parametrize('name', BAD)
def test_a_wrong_command_line_is_explained_at_once(fates, here, name):
    fate = fates[name]
    assert fate.code == 2, fate
    assert fate.stderr.startswith('lcx: ') and 'Traceback' not in fate.stderr
    for part in BAD[name][1]:
        assert part.replace('{here}', str(here)) in fate.stderr
    assert fate.seconds < 5 and not fate.devices


def test_nothing_is_left_behind(fates, here):
    assert sorted(p.name for p in here.iterdir() if p.name != '__pycache__') == ['kind.py', 'saved']
    assert [p.name for p in (here / 'saved').iterdir()] == ['config.json']


@pytest.mark.parametrize('words', HELP)
def test_help_says_what_there_is(fates, words):
    fate = fates[words]
    assert fate.code == 0 and not fate.stderr and not fate.devices
    assert fate.stdout.startswith('``lcx ' + words[0] if len(words) > 1 else 'lcx VERB')
    for verb in (
        ('train', 'eval', 'generate', 'sweep', 'report', 'data', 'search-factors')
        if len(words) < 2
        else words[:1]
    ):
        assert f'lcx {verb}' in fate.stdout


def test_a_reader_who_stops_reading_ends_the_command_quietly(tmp_path):
    child = subprocess.Popen(
        [sys.executable, '-u', '-m', 'lcx', 'report', '--positions', f'--out={tmp_path}'],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child.stdout.close()
    assert child.stderr.read() == b'' and child.wait() == 141
